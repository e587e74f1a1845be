"""The fused route: scores whose logits are inner products of features, by the kernels that others have tuned.

cuDNN's flash attention on NVIDIA (`jax.nn.dot_product_attention`), JAX's Pallas kernel on TPU, plain XLA elsewhere. What the
kernels want (one head size, lengths of whole blocks) is padded here and cut off again; what they cannot do, or only in memory
that grows with the square of the length, is refused by `refusal`, in words.
"""

import jax
import jax.numpy as jnp

from attention_variants.ops import blockwise
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import length

NARROW = ("bfloat16", "float16")
TPU_BLOCK = 128


def refusal(queries, keys, v_BSHV, *, score, mask: Mask, bias, dropout, backend: str) -> str | None:
    """Why the route cannot take this, or None where it can."""
    features = jax.eval_shape(score.as_dot, queries, keys)
    if features is None:
        return f"{type(score).__name__} has no as_dot"
    if dropout is not None:
        return "fused kernels have no dropout of the weights whose bits depend on positions"
    if bias is not None:
        return "fused kernels would write a bias out as a matrix, or not differentiate it"
    causal = _causal_by_place(mask, length(queries), v_BSHV.shape[1])
    if backend in ("gpu", "tpu") and (mask.causal != causal or mask.window is not None or mask.others or mask.dense is not None):
        return "the kernel knows causal=True over as many queries as keys, without positions, and no other mask of places"
    if backend == "gpu":
        most, size = _largest_head(), _head_size(features[0], v_BSHV)
        if most is None:
            return "cuDNN runs on NVIDIA only"
        if (found := str(jnp.result_type(*features, v_BSHV))) not in NARROW:
            return f"cuDNN computes in bfloat16 or float16, found {found}"
        if size > most:
            return f"cuDNN takes at most {most} features per head on this device, found {size}"
        if any(x is not None for x in (mask.q_valid, mask.k_valid, mask.q_segments)):
            return "cuDNN would need padding and segments as a matrix"
    return None


def route(queries, keys, v_BSHV, *, score, mask: Mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of what is not refused by `refusal`.

    Kernels round the log-normaliser, do not differentiate it or do not return it, so it is the blockwise route's: computed where
    somebody asks for it; under jit, where nobody does, the compiler removes it.
    """
    features = score.as_dot(queries, keys)
    q_length, k_length = length(queries), v_BSHV.shape[1]
    size, dtype = _head_size(features[0], v_BSHV), jnp.result_type(*features, v_BSHV)
    narrow = (_pad(x, size, axis=3).astype(dtype) for x in (*features, v_BSHV))
    out = {"gpu": _cudnn, "tpu": _tpu}.get(jax.default_backend(), _xla)(*narrow, mask)
    out = out[..., : v_BSHV.shape[-1]].astype(v_BSHV.dtype)
    if (visible := mask.visible(q_length, k_length)) is not None:
        out = jnp.where(visible.any(-1).swapaxes(1, 2)[..., None], out, jnp.zeros((), out.dtype))
    nothing = v_BSHV[..., :0]
    return out, blockwise.route(queries, keys, nothing, score=score, mask=mask, bias=bias, dropout=dropout)[1]


def _cudnn(q_BQHF, k_BSHF, v_BSHF, mask: Mask):
    return jax.nn.dot_product_attention(q_BQHF, k_BSHF, v_BSHF, scale=1.0, is_causal=mask.causal, implementation="cudnn")


def _xla(q_BQHF, k_BSHF, v_BSHF, mask: Mask):
    lengths = q_BQHF.shape[1], k_BSHF.shape[1]
    if (visible := mask.visible(*lengths)) is not None:
        visible = jnp.broadcast_to(visible, (*visible.shape[:2], *lengths))
    return jax.nn.dot_product_attention(q_BQHF, k_BSHF, v_BSHF, mask=visible, scale=1.0, implementation="xla")


def _tpu(q_BQHF, k_BSHF, v_BSHF, mask: Mask):
    from jax.experimental.pallas.ops.tpu import flash_attention as kernels  # half a second that only TPUs need

    def whole_blocks(x, axis):
        return _pad(x, -(-x.shape[axis] // TPU_BLOCK) * TPU_BLOCK, axis)

    def segments(given, valid, x):
        """From 1 on, 0 where padding hides a token: of this sequence's own, or as the mask has them."""
        ids = jnp.ones(x.shape[:2], jnp.int32) if given is None else jnp.broadcast_to(given, x.shape[:2]).astype(jnp.int32) + 1
        return whole_blocks(ids if valid is None else jnp.where(valid, ids, 0), axis=1)

    heads_first = (whole_blocks(x.swapaxes(1, 2), axis=2) for x in (q_BQHF, k_BSHF, v_BSHF))
    # A query that is padding may see what it wants: its output is set to zero by `route`.
    ids = kernels.SegmentIds(segments(mask.q_segments, None, q_BQHF), segments(mask.k_segments, mask.k_valid, k_BSHF))
    out_BHQF = kernels.flash_attention(*heads_first, segment_ids=ids, causal=mask.causal, sm_scale=1.0)
    return out_BHQF.swapaxes(1, 2)[:, : q_BQHF.shape[1]]


def _causal_by_place(mask: Mask, q_length: int, k_length: int) -> bool:
    """Whether the kernel's own causal mask, which skips what it hides, is this one: both count positions from the same place."""
    return mask.causal and mask.q_at is None and mask.k_at is None and q_length == k_length


def _head_size(fq_BQHF, v_BSHV) -> int:
    return -(-max(fq_BQHF.shape[-1], v_BSHV.shape[-1]) // 8) * 8


def _largest_head() -> int | None:
    """Of cuDNN on this device, where there is cuDNN."""
    try:
        return 256 if float(jax.devices()[0].compute_capability) >= 9 else 128
    except (AttributeError, ValueError):  # "gfx90a", say
        return None


def _pad(x, size: int, axis: int):
    return jnp.pad(x, [(0, size - n if i == axis else 0) for i, n in enumerate(x.shape)])
