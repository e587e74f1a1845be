"""The kernels of others are the dense route, and what they cannot take is refused before they are asked."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest
from cases.routes import DROPOUT, MASKS, SCORES, SEGMENTS, B, H, Q, S, arrays, assert_close, outcome
from jax.experimental.pallas.ops.tpu import flash_attention

from attention_variants.ops import fused
from attention_variants.ops.attend import attend
from attention_variants.ops.biases import Alibi
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct


@pytest.mark.parametrize(
    ("name", "mask"),
    [*(("gaussian", mask) for mask in MASKS), *((name, "causal window") for name in ("dot product", "rotary", "rotary gaussian"))],
)
def test_fused_is_dense(name, mask):
    """Through XLA here."""
    found, wanted = (outcome(route, SCORES[name], *arrays(), mask=MASKS[mask]) for route in ("fused", "dense"))
    assert_close(found, wanted)


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
