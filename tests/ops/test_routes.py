"""Every route is the dense one: values and all gradients, for every mask, bias, block, empty rows and odd lengths."""

import dataclasses
import functools
import operator

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu import flash_attention
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops import blocks, fused
from attention_variants.ops.attend import attend, attend_prepared, choose
from attention_variants.ops.biases import Alibi, RelativeBuckets
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary
from attention_variants.ops.scores import DotProduct, Score, float32, inner, with_key_term

B, Q, S, H, K, V = 2, 23, 29, 3, 7, 11
SEGMENTS = np.sort(np.random.default_rng(1).integers(0, 4, (B, S)), axis=1)
MASKS = {
    "all": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(window=3),
    "causal window": Mask(causal=True, window=4),
    "padding and empty rows": Mask(k_valid=np.arange(S) < np.array([[S], [0]]), q_valid=np.arange(Q) < np.array([[20], [3]])),
    "segments": Mask(
        causal=True, q_segments=SEGMENTS[:, :Q], k_segments=SEGMENTS, q_at=np.arange(Q)[None] % 7, k_at=np.arange(S)[None] % 7
    ),
    "dense": Mask(dense=np.random.default_rng(0).random((B, H, Q, S)) < 0.7),
    "nothing at all": Mask(k_valid=np.zeros((B, S), bool)),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Curved(Score):
    """A score with learned parameters, of the dot product and both norms: tanh(a q·k) + b‖k‖^c + exp(−‖q‖²‖k‖²)."""

    a: jax.Array
    b: jax.Array
    c: jax.Array

    def log_similarity(self, queries, keys):
        qq, kk = ((float32(x) ** 2).sum(-1).swapaxes(1, 2) for x in (queries, keys))
        return jnp.tanh(self.a[:, None, None] * inner(queries, keys)) + jnp.exp(-qq[..., None] * kk[:, :, None, :])

    def log_magnitude(self, keys):
        kk = (float32(keys) ** 2).sum(-1).swapaxes(1, 2)[:, :, None, :]
        return self.b * kk ** (self.c / 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian(Score):
    """−w‖q − k‖² + m‖k‖₄², an inner product of features."""

    width: jax.Array
    magnitude: jax.Array

    def log_similarity(self, queries, keys):
        return -self.width * ((float32(queries)[:, :, None] - float32(keys)[:, None]) ** 2).sum(-1).transpose(0, 3, 1, 2)

    def log_magnitude(self, keys):
        return self._magnitude(keys).swapaxes(1, 2)[:, :, None]

    def logits(self, queries, keys):
        return inner(*self.as_dot(queries, keys))

    def as_dot(self, queries, keys):
        return with_key_term(2 * self.width * queries, keys, self._magnitude(keys) - self.width * (float32(keys) ** 2).sum(-1))

    def _magnitude(self, keys):
        return self.magnitude * (float32(keys) ** 4).sum(-1) ** 0.5


SCORES = {
    "dot product": DotProduct(),
    "curved": Curved(jnp.array([0.3, 0.5, 0.9]), jnp.float32(0.2), jnp.float32(1.3)),
    "gaussian": Gaussian(jnp.float32(0.11), jnp.float32(0.07)),
    "rotary": Rotary(DotProduct()),
    "rotary gaussian": Rotary(Gaussian(jnp.float32(0.11), jnp.float32(0.07))),
}
BIASES = {"none": None, "relative": RelativeBuckets(jax.random.normal(jax.random.key(9), (32, H))), "alibi": Alibi(H)}
DROPOUT = Dropout(0.3, jax.random.key(1), jnp.array([4, 5]))


def arrays(dtype=jnp.float32):
    return [jax.random.normal(jax.random.key(n), s, dtype) / 2 for n, s in enumerate([(B, Q, H, K), (B, S, H, K), (B, S, H, V)])]


def outcome(route, score, q, k, v, *, mask=MASKS["all"], bias=None, dropout=None):
    """((out, log-normaliser, zeros where rows are empty), gradients into (q, k, v, score, bias) of a curved function of both)."""

    def run(q, k, v, score, bias):
        at = mask.positions(Q, S)
        queries, keys = score.prepare_queries(q, at[0]), score.prepare_keys(k, at[1])
        out, top = attend_prepared(queries, keys, v, score=score, mask=mask, bias=bias, dropout=dropout, route=route)
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        return jnp.sin(3 * float32(out)).sum() + jnp.cos(top).sum(), (out, top)

    (_, values), grads = jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2, 3, 4), has_aux=True))(q, k, v, score, bias)
    return values, grads


def assert_close(found, wanted, tolerance=1e-5):
    """To the tolerance of the largest number, for each of a sequence's members by itself; and finite."""
    if isinstance(found, tuple):
        for ours, theirs in zip(found, wanted, strict=True):
            assert_close(ours, theirs, tolerance)
        return
    ours, theirs = ([np.float64(x) for x in jax.tree.leaves(tree)] for tree in (found, wanted))
    largest = max((abs(x).max() for x in theirs), default=0)
    for a, b in zip(ours, theirs, strict=True):
        assert np.isfinite(a).all()
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-6, largest))


def in_blocks(monkeypatch, queries: int, keys: int):
    monkeypatch.setattr(blocks, "choose", lambda *args: blocks.Blocks(queries, keys))


@functools.cache
def with_everything(mask: str, route: str, blocks=None):
    """The outcome for a score with parameters, a bias and dropout."""
    return outcome(route, SCORES["curved"], *arrays(), mask=MASKS[mask], bias=BIASES["relative"], dropout=DROPOUT)


@pytest.mark.parametrize("mask", MASKS)
def test_blockwise_is_dense_for_every_mask(monkeypatch, mask):
    in_blocks(monkeypatch, 5, 7)
    assert_close(with_everything(mask, "blockwise"), with_everything(mask, "dense"))


@pytest.mark.parametrize("blocks", [(Q, S), (4, S), (Q, 6), (1, 1)], ids=str)
@pytest.mark.parametrize("mask", ["causal window", "padding and empty rows"])
def test_blockwise_is_dense_for_every_block(monkeypatch, mask, blocks):
    """The whole at once, one element at a time, and blocks that do not divide the lengths."""
    in_blocks(monkeypatch, *blocks)
    assert_close(with_everything(mask, "blockwise", blocks), with_everything(mask, "dense"))


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_blockwise_is_dense_for_every_score_and_bias(monkeypatch, score, bias):
    in_blocks(monkeypatch, 5, 7)
    given = dict(mask=MASKS["causal window"], bias=bias)
    assert_close(outcome("blockwise", score, *arrays(), **given), outcome("dense", score, *arrays(), **given))


@pytest.mark.parametrize(
    ("name", "mask"),
    [*(("gaussian", mask) for mask in MASKS), *((name, "causal window") for name in ("dot product", "rotary", "rotary gaussian"))],
)
def test_fused_is_dense(name, mask):
    """Through XLA here."""
    found, wanted = (outcome(route, SCORES[name], *arrays(), mask=MASKS[mask]) for route in ("fused", "dense"))
    assert_close(found, wanted)


@pytest.mark.parametrize("route", ["blockwise", "fused"])
@pytest.mark.parametrize("name", ["dot product", "gaussian", "rotary"])
def test_in_bfloat16_a_route_is_as_close_to_float32_as_dense_is(monkeypatch, name, route):
    """Within its own rounding: no further from the float32 result on the same rounded inputs than twice the dense route is."""
    in_blocks(monkeypatch, 5, 7)
    score, inputs = SCORES[name], arrays(jnp.bfloat16)
    mask = MASKS["causal"]
    of = lambda route, *inputs: jax.tree.leaves(outcome(route, score, *inputs, mask=mask))
    exact, dense, found = of("dense", *(x.astype(jnp.float32) for x in inputs)), of("dense", *inputs), of(route, *inputs)
    for right, theirs, ours in zip(exact, dense, found, strict=True):  # output, normaliser, and all gradients
        right, scale = np.float64(right), float(abs(right).max())
        error, allowed = abs(np.float64(ours) - right), abs(np.float64(theirs) - right)
        assert error.max() < 2 * allowed.max() + 2**-8 * scale
        assert error.mean() < 1.5 * allowed.mean() + 2**-12 * scale


def test_blockwise_in_float64_is_dense_to_1e_12(monkeypatch):
    in_blocks(monkeypatch, 5, 7)
    with jax.enable_x64(True):
        score = jax.tree.map(lambda x: x.astype(jnp.float64), SCORES["curved"])
        given = dict(mask=MASKS["padding and empty rows"], dropout=DROPOUT)
        found, wanted = (outcome(route, score, *arrays(jnp.float64), **given) for route in ("blockwise", "dense"))
        assert found[0][0].dtype == jnp.float64
        assert_close(found, wanted, 1e-12)


def test_blocks_that_are_hidden_are_never_visited():
    pairs = lambda mask: {tuple(p) for p in blocks.pairs(mask, blocks.Blocks(4, 4), 16, 16).tolist()}
    every = {(i, j) for i in range(4) for j in range(4)}
    assert pairs(Mask()) == every
    assert pairs(Mask(causal=True)) == {(i, j) for i, j in every if j <= i}
    assert pairs(Mask(window=1)) == {(i, i) for i in range(4)}
    assert pairs(Mask(window=2)) == {(i, j) for i, j in every if abs(i - j) <= 1}
    assert pairs(Mask(causal=True, window=6)) == {(i, j) for i, j in every if 0 <= i - j <= 2}
    assert pairs(Mask(causal=True, q_at=jnp.arange(16)[None])) == every  # where positions are arrays, nothing is known before


def test_blocks_fit_the_lengths_and_shrink_as_heads_grow():
    assert blocks.choose(4, 8192, 8192, "cpu") == (512, 512)
    assert blocks.choose(4, 100, 8192, "cpu") == (100, 512)
    assert blocks.choose(4000, 8192, 8192, "cpu") == (64, 64)
    assert blocks.choose(1, 8192, 8192, "gpu").queries >= 512


def test_vmap_over_lanes_is_each_lane_alone(monkeypatch):
    """Different inputs, scores and dropout rates in each lane, gradients too."""
    in_blocks(monkeypatch, 5, 7)
    q, k, v = (jnp.stack([x, 1.5 * x, x - 0.5]) for x in arrays())
    scores = jax.tree.map(lambda x: jnp.stack([x, 1.5 * x, 0.5 * x]), SCORES["curved"])
    rates = jnp.array([0.0, 0.2, 0.6])

    def grads(route, q, k, v, score, rate):
        def run(q, k, v, score):
            dropout = DROPOUT._replace(rate=rate)
            return jnp.sin(attend(q, k, v, score=score, mask=MASKS["causal"], dropout=dropout, route=route)).sum()

        return jax.grad(run, argnums=(0, 1, 2, 3))(q, k, v, score)

    lanes = jax.jit(jax.vmap(functools.partial(grads, "blockwise")))(q, k, v, scores, rates)
    for lane in range(3):
        take = functools.partial(jax.tree.map, operator.itemgetter(lane))
        assert_close(take(lanes), grads("dense", *take((q, k, v, scores, rates))))


def test_rematerialised_and_over_a_mesh_it_is_the_same(monkeypatch):
    in_blocks(monkeypatch, 5, 7)
    q, k, v = (jnp.concatenate([x, -x]) for x in arrays())

    def loss(route, q, k, v):
        return jnp.sin(attend(q, k, v, score=DotProduct(), mask=MASKS["causal"], route=route)).sum()

    wanted = jax.grad(functools.partial(loss, "dense"), argnums=(0, 1, 2))(q, k, v)
    assert_close(jax.jit(jax.grad(jax.checkpoint(functools.partial(loss, "blockwise")), argnums=(0, 1, 2)))(q, k, v), wanted)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    run = jax.jit(jax.grad(functools.partial(loss, "blockwise"), argnums=(0, 1, 2)), in_shardings=rows, out_shardings=rows)
    assert_close(run(*(jax.device_put(x, rows) for x in (q, k, v))), wanted)


def memory(route: str, length: int) -> int:
    """Bytes of temporary memory, forward and backward, 4 heads of 64, by the compiler's own analysis."""
    x = jax.ShapeDtypeStruct((1, length, 4, 64), jnp.float32)
    loss = lambda q, k, v: attend(q, k, v, score=DotProduct(), mask=Mask(causal=True), route=route).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_length_and_not_with_its_square(as_users_compile):
    """Length 8,192: at most 100 MiB, where dense takes 4 GiB; twice the length, twice the memory."""
    assert memory("blockwise", 8192) < 100 * 2**20
    assert memory("blockwise", 16384) < 2.1 * memory("blockwise", 8192)
    assert memory("dense", 8192) > 4 * 2**30


def test_auto_takes_the_dense_route_where_it_is_small_and_says_why():
    q, k, v = arrays()
    out, why = attend(q, k, v, score=DotProduct(), explain=True)
    assert_close(out, attend(q, k, v, score=DotProduct(), route="dense"), 0)
    assert why.startswith("dense: 4,002 logits are fewer than the ")
    long = [jax.ShapeDtypeStruct((1, 8192, 4, 64), jnp.float32)] * 3
    assert choose(*long, score=DotProduct())[0] == "blockwise"
    assert choose(*long, score=DotProduct(), route="dense") == ("dense", "as asked for")
    assert choose(*long, score=SCORES["curved"])[1].endswith("not fused: Curved has no as_dot")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(score=SCORES["curved"]), "Curved has no as_dot"),
        (dict(bias=Alibi(H)), "bias"),
        (dict(dropout=DROPOUT), "dropout"),
    ],
)
def test_what_fused_cannot_take_is_refused_with_the_reason_and_another_route(changes, reason):
    with pytest.raises(ValueError, match=rf"route='fused' cannot take this: .*{reason}.*; take route='blockwise'"):
        attend(*arrays(), **(dict(score=DotProduct(), route="fused") | changes))


def test_what_cudnn_cannot_take_is_known_before_it_is_asked(monkeypatch):
    monkeypatch.setattr(fused, "_largest_head", lambda: 128)
    given = dict(score=DotProduct(), mask=Mask(), bias=None, dropout=None, backend="gpu")
    refusal = functools.partial(fused.refusal, **given)
    wide = [jnp.zeros((B, S, H, size), jnp.bfloat16) for size in (64, 136)]
    assert "bfloat16 or float16, found float32" in refusal(*arrays())
    assert refusal(wide[0], wide[0], wide[0]) is None
    assert "at most 128 features per head on this device, found 136" in refusal(wide[0], wide[0], wide[1])
    square, cross = [wide[0]] * 3, [wide[0][:, :3], wide[0], wide[0]]
    assert fused.refusal(*square, **given | dict(mask=Mask(causal=True))) is None
    own = "the kernel knows causal=True over as many queries as keys"
    for backend, arrays_, mask, why in (
        ("gpu", square, Mask(causal=True, window=3), own),
        ("gpu", square, Mask(causal=True, q_at=jnp.arange(S)[None]), own),
        ("gpu", cross, Mask(causal=True), own),
        ("gpu", square, Mask(k_valid=jnp.ones((B, S), bool)), "cuDNN would need padding and segments as a matrix"),
        ("tpu", square, Mask(k_valid=jnp.ones((B, S), bool)), None),
        ("tpu", square, Mask(dense=jnp.ones((S, S), bool)), own),
        ("cpu", square, Mask(dense=jnp.ones((S, S), bool)), None),
    ):
        found = fused.refusal(*arrays_, **given | dict(mask=mask, backend=backend))
        assert found is None if why is None else found.startswith(why)
    monkeypatch.setattr(fused, "_largest_head", lambda: None)
    assert fused.refusal(*square, **given) == "cuDNN runs on NVIDIA only"


SEVERAL = Mask(q_segments=SEGMENTS[:, :Q], k_segments=SEGMENTS)


@pytest.mark.parametrize(
    "mask", [Mask(), Mask(causal=True), MASKS["padding and empty rows"], SEVERAL], ids=["all", "causal", "empty", "segments"]
)
def test_the_kernel_of_tpus_is_dense(monkeypatch, mask):
    """Interpreted here, forward and backward, at lengths that are no multiple of its blocks."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    q, k, v = arrays()
    if mask.causal:
        k, v = k[:, :Q], v[:, :Q]

    def run(route, q, k, v):
        out = attend(q, k, v, score=SCORES["gaussian"], mask=mask, route=route)
        return jnp.sin(3 * out).sum(), out

    run = jax.jit(jax.value_and_grad(run, argnums=(1, 2, 3), has_aux=True), static_argnums=0)
    monkeypatch.setattr(flash_attention.pl, "pallas_call", functools.partial(flash_attention.pl.pallas_call, interpret=True))
    assert_close(run("fused", q, k, v), run("dense", q, k, v), 2e-5)


def test_the_kernel_of_tpus_lowers(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    x = jax.ShapeDtypeStruct((2, 300, 4, 64), jnp.bfloat16)
    valid = jax.ShapeDtypeStruct((2, 300), jnp.bool_)
    loss = lambda q, k, v, valid: attend(q, k, v, score=DotProduct(), mask=Mask(causal=True, k_valid=valid), route="fused").sum()
    exported = jax.export.export(jax.jit(jax.grad(loss, argnums=(0, 1, 2))), platforms=["tpu"])(x, x, x, valid)
    assert "tpu_custom_call" in exported.mlir_module()


@pytest.mark.parametrize("route", ["dense", "blockwise", "fused"])
def test_what_is_no_pytree_is_refused_by_every_route(route):
    with pytest.raises(ValueError, match="the bias is a function, which is no pytree"):
        attend(*arrays(), score=DotProduct(), bias=lambda q_at, k_at: 0.0, route=route)
    with pytest.raises(ValueError, match="the score is a Unregistered, which is no pytree"):
        attend(*arrays(), score=Unregistered(), route=route)


class Unregistered(DotProduct):
    """A subclass that nobody told jax of."""
