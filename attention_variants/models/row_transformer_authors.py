"""The row Transformer as in the code of Song et al. 2021: another ReLU after the feed-forward net, and PyTorch's initial values.

Linear layers begin uniform within ± 1/√inputs, kernels and biases alike.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax

from attention_variants.models import row_transformer
from attention_variants.models.heads import Noise
from attention_variants.models.layers import EncoderLayer
from attention_variants.ops.masks import Mask


@dataclasses.dataclass(frozen=True)
class Config(row_transformer.Config):
    """As the row Transformer's."""

    plain_feed_forward: ClassVar[bool] = False


class Layer(EncoderLayer):
    """An encoder layer whose feed-forward net ends in a ReLU."""

    def __call__(self, x_BSD, mask: Mask, bias, noise: Noise | None):
        attend = lambda x: self.self_attention(x, mask=mask, bias=bias, noise=noise)
        x_BSD = self.self_attention_residual(x_BSD, noise, attend)
        return self.feed_forward_residual(x_BSD, noise, lambda x: nn.relu(self.feed_forward(x)))


class RowTransformer(row_transformer.RowTransformer):
    """Rows in, predictions out."""

    layer = Layer

    def init(self, key, *inputs):
        """The parameters, as PyTorch would draw them."""
        variables = super().init(key, *inputs)
        paths = jax.tree_util.tree_flatten_with_path(variables["params"])[0]
        inputs_of = {path[:-1]: x.size // math.prod(_outputs(path, x)) for path, x in paths if path[-1].key == "kernel"}

        def drawn(number, path, x):
            if path[:-1] not in inputs_of:
                return x
            bound = inputs_of[path[:-1]] ** -0.5
            return jax.random.uniform(jax.random.fold_in(key, number), x.shape, x.dtype, -bound, bound)

        leaves = [drawn(number, path, x) for number, (path, x) in enumerate(paths)]
        return {"params": jax.tree.unflatten(jax.tree.structure(variables["params"]), leaves)}


def _outputs(path, kernel) -> tuple[int, ...]:
    """Of a kernel (inputs, heads, size) both of the last, of (heads, size, outputs) and (inputs, outputs) the last."""
    return kernel.shape[1:] if path[-2].key in ("query", "key", "value") else kernel.shape[-1:]


def build(config: Config, variant: Any, outputs: int) -> RowTransformer:
    """The model of a config, for a variant's Config and as many outputs."""
    return RowTransformer(config, variant, outputs)
