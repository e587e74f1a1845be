"""The learned kernels of a run: over distance beside an RBF kernel, their frequencies, their values, and how heads hang together.

    python -m attention_variants.analysis.spectra --workdir=runs/demo       # pictures below runs/demo/figures/spectra

For every attention layer whose score is spectral (`ops.spectral`), of the queries and keys that the run's own heatmaps show.
"""

import math
import pathlib

import numpy as np
from absl import flags

from attention_variants.analysis import start
from attention_variants.analysis.decomposition import distances
from attention_variants.errors import InputError
from attention_variants.figures import smoothing, spectra
from attention_variants.ops.products import inner
from attention_variants.ops.rotary import Rotary
from attention_variants.ops.spectral import Spectral
from attention_variants.train import runs


def spectral(trace: dict) -> Spectral | None:
    """The spectral score of a layer, rotary or not; None where it has another."""
    score = trace["score"].score if isinstance(trace["score"], Rotary) else trace["score"]
    return score if isinstance(score, Spectral) else None


def kernels(trace: dict) -> dict[str, np.ndarray]:
    """Of one layer's trace: `distance`, `kappa`, `similarity` and `rbf` of the first example, (H, Q, S); all `frequencies` (H, N).

    `rbf` is exp(−distance² / 2√d), the similarity inside scaled dot-product attention.
    """
    score, queries, keys = spectral(trace), trace["queries"], trace["keys"]
    keys = keys[0] if isinstance(trace["score"], Rotary) else keys
    phi_BQHF = getattr(queries, "phi_BSHF", queries)
    distance = distances(trace)[0]
    drawn = [np.asarray(w)[0] if w.ndim == 4 else np.asarray(w) for w in (score.w1, score.w2) if w is not None]
    return {
        "distance": distance,
        "kappa": np.asarray(inner(phi_BQHF[:1], keys.phi_BSHF[:1]))[0],
        "similarity": np.exp(np.asarray(score.log_similarity(queries, keys))[0]),
        "rbf": np.exp(-np.square(distance) / (2 * math.sqrt(trace["q_BQHK"].shape[-1]))),
        "frequencies": np.concatenate([w.transpose(1, 0, 2).reshape(w.shape[1], -1) for w in drawn], 1),
    }


def correlation(trace: dict) -> np.ndarray | None:
    """(H, H): how the noise of heads is correlated, the mean over features of |correlation|; None where it is not to be."""
    sampler = trace.get("variant", {}).get("sampler", {})
    return abs(np.asarray(sampler["correlation"])[0]).mean(0) if "correlation" in sampler else None


def deviation(score: Spectral, size: int) -> float:
    """The standard deviation, in cycles, of frequencies whose kernel is the RBF inside the dot product of keys of a size.

    Or whose kernel's square is, where κ² is the similarity: κ is exp(−‖q − k‖² (2π deviation)² / 2) (Bochner).
    """
    return 1 / (2 * math.pi * size**0.25 * (math.sqrt(2) if score.positive == "squared" else 1))


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """The pictures of every layer with a spectral kernel. Raises InputError where there is none."""
    loaded, paths = runs.Loaded(workdir, tell), []
    folder = loaded.workdir / "figures" / "spectra"
    for name, (trace, queries, keys) in loaded.task.traces(loaded.params, loaded.model_state, loaded.place).items():
        if (score := spectral(trace)) is None:
            continue
        found, title, cut = kernels(trace), name.replace("_", " "), np.s_[:, : len(queries), : len(keys)]
        distance, kappa, similarity, rbf = (found[part][cut] for part in ("distance", "kappa", "similarity", "rbf"))
        size, along = trace["q_BQHK"].shape[-1], np.linspace(0, distance.max(), 200)
        new = [folder / f"{name}_{kind}.png" for kind in ("over_distance", "frequencies", "values")]
        relative, line = similarity / similarity.max((1, 2), keepdims=True), np.exp(-np.square(along) / (2 * math.sqrt(size)))
        heads, shown = [f"head {h}" for h in range(len(relative))], dict(what="similarity over its largest", line=(along, line))
        smoothing.over_distance(new[0], distance, relative, heads, title=title, **shown)
        spectra.densities(new[1], found["frequencies"], deviation(score, size), title=f"{title}: spectral density")
        spectra.histograms(new[2], {"RBF": rbf, "κ": kappa, "similarity": similarity}, title=title)
        if (together := correlation(trace)) is not None:
            new.append(folder / f"{name}_heads.png")
            spectra.correlations(new[-1], together, title=f"{title}: correlation of heads")
        paths += new
    if not paths:
        raise InputError(f"{workdir} has no layer with a spectral kernel; expected a run of variant=implicit_kernel")
    return paths


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    start(draw)
