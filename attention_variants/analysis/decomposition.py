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
from absl import app, flags

from attention_variants.errors import InputError
from attention_variants.figures import smoothing
from attention_variants.ops.kernels import squared_distance
from attention_variants.train import runs
from attention_variants.train.cli import fail


class Parts(NamedTuple):
    """What weights are made of, float64, each with 1 as its largest in a head of an example; masked pairs are 0.

    Attributes:
      similarity_BHQS, magnitude_BHS. weights_BHQS: their product over its sum, 0 for queries that see nothing.
    """

    similarity_BHQS: np.ndarray
    magnitude_BHS: np.ndarray
    weights_BHQS: np.ndarray


def decompose(trace: dict) -> Parts:
    """The parts of the weights of one attention layer, from its entry in the collection "trace".

    Raises:
      InputError: its logits have a bias, which is neither.
    """
    if trace["bias"] is not None:
        raise InputError("attention with a bias is no similarity times magnitude; expected a model without (positions=sinusoidal)")
    score = trace["score"]
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda x: np.asarray(x).astype(np.float64), tree)
        queries, keys = wide(trace["queries"]), wide(trace["keys"])
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
    return np.exp(log_BHQS - np.where(np.isfinite(top), top, 0.0))


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """Two pictures for every attention layer of a run: the parts of each head side by side, and its weights over distance."""
    loaded, paths = runs.Loaded(workdir, tell), []
    for name, (trace, queries, keys) in loaded.task.traces(loaded.params, loaded.model_state, loaded.place).items():
        parts = decompose(trace)
        shown = parts.similarity_BHQS[0, :, : len(queries), : len(keys)], parts.magnitude_BHS[0, :, : len(keys)]
        paths.append(loaded.workdir / "figures" / "decomposition" / f"{name}.png")
        weights = parts.weights_BHQS[0, :, : len(queries), : len(keys)]
        smoothing.decomposition(paths[-1], *shown, weights, queries, keys, title=name.replace("_", " "))
        paths.append(paths[-1].with_name(f"{name}_over_distance.png"))
        heads = [f"head {h}" for h in range(len(weights))]
        distance = distances(trace)[0, :, : len(queries), : len(keys)]
        smoothing.over_distance(paths[-1], distance, weights, heads, title=name.replace("_", " "))
    return paths


def distances(trace: dict) -> np.ndarray:
    """‖q_i − k_j‖ of one attention layer: (B, H, Q, S)."""
    keys = trace["keys"]
    return np.sqrt(squared_distance(trace["queries"], getattr(keys, "k_BSHK", keys)))


def main(arguments: list[str]) -> None:
    del arguments
    try:
        if not flags.FLAGS.workdir:
            raise InputError("--workdir is missing; expected the folder of a training run")
        for path in draw(flags.FLAGS.workdir):
            print(path)
    except InputError as error:
        fail(str(error))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    app.run(main)
