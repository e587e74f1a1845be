"""The fused route: scores whose logits are inner products of features, by the kernels that others have tuned.

`jax.nn.dot_product_attention` runs cuDNN's flash attention on NVIDIA and plain XLA elsewhere. What the kernels want (one head
size, a multiple of eight) is padded with zeros here; what they cannot do, or only in memory that grows with the square of the
length, is refused by `refusal`, in words.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_variants.ops import blockwise
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import length

NARROW = ("bfloat16", "float16")


def refusal(queries, keys, v_BSHV, *, score, mask: Mask, bias, dropout, backend: str) -> str | None:
    """Why the route cannot take this, or None where it can."""
    features = jax.eval_shape(score.as_dot, queries, keys)
    if features is None:
        return f"{type(score).__name__} has no as_dot"
    if dropout is not None:
        return "fused kernels have no dropout of the weights whose bits depend on positions"
    if bias is not None:
        return "fused kernels would write a bias out as a matrix, or not differentiate it"
    if backend == "gpu":
        most, size = _largest_head(), _head_size(features[0], v_BSHV)
        if most is None:
            return "cuDNN runs on NVIDIA only"
        if (found := str(jnp.result_type(*features, v_BSHV))) not in NARROW:
            return f"cuDNN computes in bfloat16 or float16, found {found}"
        if size > most:
            return f"cuDNN takes at most {most} features per head on this device, found {size}"
        own = _kernels_own(mask, length(queries), v_BSHV.shape[1])
        if jax.tree.leaves(mask) or mask.window is not None or mask.causal != own:
            return "cuDNN would need this mask as a matrix; it takes none, or causal=True alone over as many queries as keys"
    return None


def route(queries, keys, v_BSHV, *, score, mask: Mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of what is not refused by `refusal`.

    Kernels round the log-normaliser, do not differentiate it or do not return it, so it is the blockwise route's: computed where
    somebody asks for it, and else removed by the compiler.
    """
    fq_BQHF, fk_BSHF = score.as_dot(queries, keys)
    gpu = jax.default_backend() == "gpu"
    q_length, k_length = length(queries), v_BSHV.shape[1]
    causal = _kernels_own(mask, q_length, k_length)
    visible = (dataclasses.replace(mask, causal=False) if causal else mask).visible(q_length, k_length)
    if visible is not None:
        visible = jnp.broadcast_to(visible, (*visible.shape[:2], q_length, k_length))
    size, dtype = _head_size(fq_BQHF, v_BSHV), jnp.result_type(fq_BQHF, fk_BSHF, v_BSHV)
    out = jax.nn.dot_product_attention(
        *(_pad(x, size).astype(dtype) for x in (fq_BQHF, fk_BSHF, v_BSHV)),
        mask=visible,
        scale=1.0,
        is_causal=causal,
        implementation="cudnn" if gpu else "xla",
    )
    out = out[..., : v_BSHV.shape[-1]].astype(v_BSHV.dtype)
    if visible is not None:
        seen = mask.visible(q_length, k_length).any(-1)
        out = jnp.where(seen.swapaxes(1, 2)[..., None], out, jnp.zeros((), out.dtype))
    nothing = v_BSHV[..., :0]
    return out, blockwise.route(queries, keys, nothing, score=score, mask=mask, bias=bias, dropout=dropout)[1]


def _head_size(fq_BQHF, v_BSHV) -> int:
    return -(-max(fq_BQHF.shape[-1], v_BSHV.shape[-1]) // 8) * 8


def _kernels_own(mask: Mask, q_length: int, k_length: int) -> bool:
    """Whether the kernel's own causal mask, which skips what it hides, is ours: both count positions from the same place."""
    return mask.causal and mask.q_at is None and mask.k_at is None and q_length == k_length and mask.window is None


def _largest_head() -> int | None:
    """Of cuDNN on this device, where there is cuDNN."""
    try:
        return 256 if float(jax.devices()[0].compute_capability) >= 9 else 128
    except (AttributeError, ValueError):  # "gfx90a", say
        return None


def _pad(x, size: int):
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, size - x.shape[-1])))
