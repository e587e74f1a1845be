"""The cells of the ablations `kernels_…`: dot product, RBF without and with a magnitude that is not its own, implicit kernels."""

from experiments.sweep import axis, chain, product

KERNELS = chain(
    [{}],
    product([{"variant": "rbf"}], [{"variant.magnitude": "none"}, {"variant.magnitude": "squared", "variant.p": 3.0}]),
    product([{"variant": "implicit_kernel"}], axis("variant.mode", "direct", "sampled", "copula")),
)
