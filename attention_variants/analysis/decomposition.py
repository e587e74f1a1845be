"""Attention weights of a trained run, taken apart: similarity × magnitude, whose product over its sum is the weight.

    weight_ij = similarity(q_i, k_j) · magnitude(k_j) / Σ_l similarity(q_i, k_l) · magnitude(k_l)

Of scaled dot-product attention the similarity is exp(−‖q − k‖² / 2√d), an RBF kernel, and the magnitude exp(‖k‖² / 2√d) (Song et
al. 2021, "Implicit kernel attention").

    python -m attention_variants.analysis.decomposition --workdir=runs/demo       # pictures below runs/demo/figures/decomposition
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from attention_variants.analysis import start
from attention_variants.errors import InputError
from attention_variants.figures import smoothing
from attention_variants.ops.kernels import squared_distance
from attention_variants.train import runs


class Parts(NamedTuple):
    """What weights are made of, float64.

    Attributes:
      log_similarity_BHQS, log_magnitude_BHS: logarithms, each with 0 as its largest in a head of an example; −inf for masked pairs
        and keys that nobody sees. weights_BHQS: the product over its sum, 0 for queries that see nothing.
    """

    log_similarity_BHQS: np.ndarray
    log_magnitude_BHS: np.ndarray
    weights_BHQS: np.ndarray


def decompose(trace: dict, rows: int | None = None) -> Parts:
    """The parts of the weights of one attention layer, from its entry in the collection "trace".

    Args:
      rows: of the first so many queries; all by default.

    Raises:
      InputError: its logits have a bias, which is neither.
    """
    if trace["bias"] is not None:
        raise InputError("attention with a bias is no similarity times magnitude; expected a model without (positions=sinusoidal)")
    score = trace["score"]
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda x: np.asarray(x).astype(np.float64), tree)
        queries, keys = wide(jax.tree.map(lambda x: x[:, :rows], trace["queries"])), wide(trace["keys"])
        similarity = np.asarray(score.log_similarity(queries, keys))
        magnitude = np.broadcast_to(score.log_magnitude(keys), (*similarity.shape[:2], 1, similarity.shape[3]))
        visible = trace["mask"].visible(*similarity.shape[2:])
    similarity = similarity if visible is None else np.where(visible, similarity, -np.inf)
    seen = np.isfinite(similarity).any(2, keepdims=True)
    magnitude = np.where(seen, magnitude, -np.inf)
    logits = similarity + magnitude
    top = logits.max(-1, keepdims=True)
    product = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    weights = product / np.maximum(product.sum(-1, keepdims=True), 1e-300)
    return Parts(_relative(similarity), _relative(magnitude)[:, :, 0], weights)


def _relative(log_BHQS) -> np.ndarray:
    top = log_BHQS.max((2, 3), keepdims=True)
    return log_BHQS - np.where(np.isfinite(top), top, 0.0)


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """Two pictures for every attention layer of a run: the parts of each head side by side, and its weights over distance."""
    loaded, paths = runs.Loaded(workdir, tell), []
    for name, (trace, queries, keys) in loaded.task.traces(loaded.params, loaded.model_state, loaded.place).items():
        parts, cut = decompose(trace, len(queries)), np.s_[0, :, : len(queries), : len(keys)]
        similarity, magnitude = np.exp(parts.log_similarity_BHQS[cut]), np.exp(parts.log_magnitude_BHS[0, :, : len(keys)])
        weights, title = parts.weights_BHQS[cut], name.replace("_", " ")
        paths.append(loaded.workdir / "figures" / "decomposition" / f"{name}.png")
        smoothing.decomposition(paths[-1], similarity, magnitude, weights, queries, keys, title=title)
        paths.append(paths[-1].with_name(f"{name}_over_distance.png"))
        heads = [f"head {h}" for h in range(len(weights))]
        smoothing.over_distance(paths[-1], distances(trace, len(queries))[cut], weights, heads, title=title)
    return paths


def distances(trace: dict, rows: int | None = None) -> np.ndarray:
    """‖q_i − k_j‖ of one attention layer, as they are compared, so rotated where they are: (B, H, Q, S); `rows` as above."""
    return np.sqrt(squared_distance(trace["q_BQHK"][:, :rows], trace["k_BSHK"]))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    start(draw)
