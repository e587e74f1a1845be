"""How alike the heads of a run are: cosines of weights and of outputs, divergence of attention maps, effective number; by layer.

    python -m attention_variants.analysis.heads --workdir=runs/demo       # pictures and heads.json below runs/demo/figures/heads

Of the best checkpoint, on validation examples; the numbers also of every other checkpoint that is kept, so over training: of the
latest two, or of as many as the run was told with --config.run.keep=.
"""

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from attention_variants.analysis import start
from attention_variants.errors import InputError
from attention_variants.figures import similarity as figures
from attention_variants.models.heads import trace_weights
from attention_variants.ops import similarity
from attention_variants.particles import groups
from attention_variants.train import runs
from attention_variants.train.workdir import write_json

NAMES = ("query", "key", "value", "outputs", "divergence")


class Alike(NamedTuple):
    """How alike the heads of one attention layer are, float64.

    Attributes:
      matrices: by name, (H, H): cosines of the `query`, `key` and `value` weights and of the `outputs`, and the `divergence` of
        attention maps in bits. effective: number of heads, by their outputs.
    """

    matrices: dict[str, np.ndarray]
    effective: float

    def numbers(self) -> dict[str, float]:
        """The mean over pairs of heads of each matrix, and the effective number."""
        return {name: float(similarity.between(matrix)) for name, matrix in self.matrices.items()} | {"effective": self.effective}


def alike(params, layers: dict) -> dict[str, Alike]:
    """By attention layer.

    Args:
      params: of the model. layers: by layer, its trace and which queries are real, as a task's `attention` has them first.

    Raises:
      InputError: no layer has two heads.
    """
    kernels = {group.name: group for group in groups.find(params)} if _projected(params) else {}
    leaves, found = groups.by_path(params), {}
    for name, (trace, real_BQ, *_) in layers.items():
        if trace["q_BQHK"].shape[2] < 2:
            continue
        matrices = {
            path.split("/")[-2]: similarity.cosines(jnp.moveaxis(group.views(leaves)[0][0], 1, 0).reshape(group.heads, -1))
            for path, group in kernels.items()
            if "_".join(path.split("/")[:-2]) == name
        }
        outputs_HH, divergence_HH = _of_maps(trace_weights(trace), trace["v_BSHV"], real_BQ)
        matrices |= {"outputs": outputs_HH, "divergence": divergence_HH}
        ordered = {kind: np.asarray(matrices[kind], np.float64) for kind in NAMES if kind in matrices}
        found[name] = Alike(ordered, float(similarity.effective_number(outputs_HH)))
    if not found:
        raise InputError("no attention layer of this run has two heads; expected model.heads of at least 2")
    return found


@jax.jit
def _of_maps(weights_BHQS, v_BSHV, real_BQ):
    out_BQHV = jnp.einsum("bhqs,bshv->bqhv", weights_BHQS, v_BSHV)
    return similarity.output_cosines(out_BQHV, real_BQ), similarity.divergences(weights_BHQS, real_BQ)


def _projected(params) -> bool:
    return any(path.endswith("value/kernel") and leaf.ndim >= 3 for path, leaf in groups.by_path(params).items())


def layers(task, params, model_state, place) -> dict:
    """By layer, a trace of many validation examples, which queries are real, and the names of each example's keys."""
    if hasattr(task, "attention"):
        return task.attention(params, model_state, place)
    whole = lambda trace: np.ones(trace["q_BQHK"].shape[:2], bool)
    found = task.traces(params, model_state, place)
    return {name: (trace, whole(trace), [keys] * len(whole(trace))) for name, (trace, _, keys) in found.items()}


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """A picture of the matrices of every layer, one of the numbers of all layers over checkpoints, and these in heads.json."""
    loaded = runs.Loaded(workdir, tell)
    compared = lambda params, model_state: alike(params, layers(loaded.task, params, model_state, loaded.place))
    numbers = lambda found: {name: of.numbers() for name, of in found.items()}
    best = compared(loaded.params, loaded.model_state)
    folder, over_steps = loaded.workdir / "figures" / "heads", {loaded.step: numbers(best)}
    for step in set(runs.steps(loaded.workdir)) - {loaded.step}:
        try:
            over_steps[step] = numbers(compared(*loaded.at(step)))
        except InputError as error:  # of the others some may be broken, or gone by now
            tell(f"{error}; going on without it")
    paths = [folder / "over_training.png"]
    figures.over_steps(paths[0], over_steps)
    for name, of in best.items():
        paths.append(folder / f"{name}.png")
        title = f"{name.replace('_', ' ')}: {of.effective:.2f} of {len(of.matrices['outputs'])} heads"
        figures.matrices(paths[-1], of.matrices, title=title)
    write_json(folder / "heads.json", {str(step): over_steps[step] for step in sorted(over_steps)})
    print(json.dumps(over_steps[loaded.step]))
    return [*paths, folder / "heads.json"]


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    start(draw)
