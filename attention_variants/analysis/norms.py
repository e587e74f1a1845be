"""What tokens contribute, weights times norms of what they carry: of every attention block of a run, and of pre-trained models.

    ‖w_ij f_h(x_j)‖ of each head, ‖Σ_h …‖ of all, with the residual connection, after layer normalisation; and how much of a
    token's vector comes from others (mixing ratios)

Kobayashi et al. 2020 and 2021; `ops.norms` has the formulas.

    python -m attention_variants.analysis.norms --workdir=runs/demo       # pictures and norms.json below runs/demo/figures/norms
    python -m attention_variants.analysis.norms --model=FOLDER --text=FILE --output=DIR    # BERT, RoBERTa, DistilBERT, Marian
"""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags
from scipy import stats

from attention_variants.analysis import pretrained, start
from attention_variants.analysis.blocks import MIXING, Block, Norms, blocks, measure, own_sources
from attention_variants.analysis.heads import layers
from attention_variants.errors import InputError
from attention_variants.figures import norms as figures
from attention_variants.figures.alignment import by_layer_and_head
from attention_variants.train import runs
from attention_variants.train.workdir import write_json

MOST = 200_000  # pairs that a rank correlation is of, evenly chosen: more change no digit that is shown


def kind_of(token: str) -> str:
    """Of three kinds, "special" ([CLS], </s> and the like), "punctuation", "other"; their attention is of different kinds, too."""
    bare = token.removeprefix("##").lstrip("▁Ġ")
    if token[:1] + token[-1:] in ("[]", "<>") and len(token) > 2:
        return "special"
    return "other" if any(map(str.isalnum, bare)) or not bare else "punctuation"


class Pairs(NamedTuple):
    """Every query and real key of a layer, in every head, one after the other: weight, ‖f_h(x_j)‖, and the kind of the key."""

    weight_N: np.ndarray
    length_N: np.ndarray
    kind_N: np.ndarray


def pairs(found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> Pairs:
    """Args: real_BQ: which queries are tokens. kind_BS: of each key, "" where it is none."""
    weights_BHQS = np.asarray(found.weights_BHQS)
    real_BHQS = np.broadcast_to(real_BQ[:, None, :, None] & (kind_BS != "")[:, None, None], weights_BHQS.shape)
    spread = lambda x, at: np.broadcast_to(np.expand_dims(x, at), weights_BHQS.shape)[real_BHQS]
    return Pairs(weights_BHQS[real_BHQS], spread(np.asarray(found.lengths_BHS), 2), spread(kind_BS, (1, 2)))


def rank_correlation(of: Pairs) -> dict[str, float]:
    """Spearman's, between weight and norm, by kind of key and of all; NaN where one of them is the same everywhere."""
    found = {}
    for kind in ("all", *np.unique(of.kind_N).tolist()):
        chosen = np.flatnonzero((of.kind_N == kind) | (kind == "all"))
        chosen = chosen[:: -(-len(chosen) // MOST)]
        varies = len(chosen) > 1 and all(np.ptp(values[chosen]) > 0 for values in of[:2])
        found[kind] = float(stats.spearmanr(of.weight_N[chosen], of.length_N[chosen])[0]) if varies else float("nan")
    return found


def received(found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> dict[str, dict[str, float]]:
    """By kind of key, what a query gives to all keys of it, mean over queries and heads: by `weight` and by `norm` of each head."""
    maps = {"weight": np.asarray(found.weights_BHQS), "norm": np.asarray(found.weighted_BHQS)}
    mean = lambda map_BHQS, kind: (map_BHQS * (kind_BS == kind)[:, None, None]).sum(-1).swapaxes(1, 2)[real_BQ].mean()
    return {
        kind: {name: float(mean(map_BHQS, kind)) for name, map_BHQS in maps.items()} for kind in np.unique(kind_BS[kind_BS != ""])
    }


def variation(length: np.ndarray) -> float:
    """The coefficient of variation, standard deviation over mean."""
    return float(np.std(length) / np.mean(length))


def numbers(block: Block, found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> dict:
    """What there is to say of a layer: how much norms vary, whether weights make up for them, who receives what, and who mixes."""
    real_BS = kind_BS != ""
    lengths_BSH = np.asarray(found.lengths_BHS).swapaxes(1, 2)[real_BS]
    mean = lambda map_BHQS: [float(x) for x in np.asarray(map_BHQS).swapaxes(1, 2)[real_BQ].sum(-1).mean(0)]
    return {
        "variation of x": variation(np.linalg.norm(np.asarray(block.x_BSD, np.float32), axis=-1)[real_BS]),
        "variation of f(x)": [variation(of_head) for of_head in lengths_BSH.T],
        "norm of f(x)": [float(x) for x in lengths_BSH.mean(0)],
        "norm given": mean(found.weighted_BHQS),
        "rank correlation of weight and norm": rank_correlation(pairs(found, real_BQ, kind_BS)),
        "received": received(found, real_BQ, kind_BS),
        "mixing": {name: float(np.asarray(found.mixing_BQ[name])[real_BQ].mean()) for name in MIXING if name in found.mixing_BQ},
    }


def kinds(keys: Sequence[Sequence[str]], size: int) -> np.ndarray:
    """The kind of each key, (B, size), "" where a row has no name for it."""
    return np.array([[kind_of(key) for key in row[:size]] + [""] * (size - len(row[:size])) for row in keys])


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """Maps of an example and numbers of many, of every layer of a run: pictures and norms.json below its figures/norms."""
    loaded = runs.Loaded(workdir, tell)
    found = layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    return report(loaded.params, found, loaded.task.model.config, loaded.workdir / "figures" / "norms")


def draw_pretrained(model: str, text: str | None, output: str | None, target: str | None = None) -> list[pathlib.Path]:
    """The same of a pre-trained model's folder on the lines of a file, into a folder."""
    for flag, value in (("--text", text), ("--output", output)):
        if not value:
            raise InputError(f"--model is given without {flag}; expected --model=FOLDER --text=FILE --output=DIR")
    traced = pretrained.trace(model, text, target)
    return report(traced.params, traced.layers, traced.config, pathlib.Path(output))


def report(params, found: dict, config, folder: pathlib.Path) -> list[pathlib.Path]:
    """The same of any model of our layers.

    Args:
      found: by layer a trace, which queries are real and names of each example's keys.
      config: the model's, of which `norm` and `epsilon` are read.
    """
    read, paths, mixing, scatter, by_head = {}, [], {}, {}, {}
    for name, block in blocks(params, {name: trace for name, (trace, *_) in found.items()}, config).items():
        _, real_BQ, keys = found[name]
        measured = measure(block, own=own_sources(name), epsilon=config.epsilon)
        kind_BS = kinds(keys, block.weights_BHQS.shape[-1])
        read[name] = numbers(block, measured, real_BQ, kind_BS)
        mixing[name], scatter[name] = (
            read[name]["mixing"],
            tuple(x[:: -(-len(x) // 3000)] for x in pairs(measured, real_BQ, kind_BS)),
        )
        for what in ("norm of f(x)", "norm given", "variation of f(x)"):
            by_head.setdefault(what, []).append(read[name][what])
        paths.append(folder / f"{name}.png")
        cut = np.s_[: int(real_BQ[0].sum()), : len(keys[0])]
        shown = example(measured, cut)
        queries = found[name.replace("cross", "self")][2][0]
        figures.maps(paths[-1], shown, queries[: cut[0].stop], keys[0], title=name.replace("_", " "))
    paths += [folder / f"{name}.png" for name in ("mixing", "weights_and_norms", "heads")]
    figures.mixing(paths[-3], mixing)
    figures.weights_and_norms(paths[-2], scatter)
    by_layer_and_head(paths[-1], {what: np.array(rows) for what, rows in by_head.items()}, title="by head, mean over tokens")
    write_json(folder / "norms.json", read)
    print(json.dumps({name: {what: round(share, 4) for what, share in shares.items()} for name, shares in mixing.items()}))
    return [*paths, folder / "norms.json"]


def example(found: Norms, cut) -> dict[str, np.ndarray]:
    """Of the first example, side by side: weights, norms of what keys carry, and of both together."""
    weights_QS, length_S = np.asarray(found.weights_BHQS[0]).mean(0), np.asarray(found.lengths_BHS[0]).mean(0)
    maps = {
        "weight, mean": weights_QS,
        "norm of f(x), mean": np.broadcast_to(length_S, weights_QS.shape),
        "weight × norm, heads summed": found.summed_BQS[0],
        "with residual": found.residual_BQS[0],
    }
    if found.normalised_BQS is not None:
        maps["after layer normalisation"] = found.normalised_BQS[0]
    return {name: np.asarray(map_QS)[cut] for name, map_QS in maps.items()}


def main(workdir, model, text, output, target) -> list[pathlib.Path]:
    """What the flags say."""
    if bool(workdir) == bool(model):
        which = "both" if model else "neither"
        raise InputError(
            f"found {which} of --workdir and --model; expected --workdir=RUN, or --model=FOLDER --text=FILE --output=DIR"
        )
    return draw(workdir) if workdir else draw_pretrained(model, text, output, target)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    flags.DEFINE_string("model", None, "A pre-trained model: a folder as Hugging Face's save_pretrained writes it.")
    flags.DEFINE_string("text", None, "With --model: a file of lines, of which the first 64 are read.")
    flags.DEFINE_string("output", None, "With --model: the folder for pictures and norms.json.")
    flags.DEFINE_string("target", None, "With --model, of Marian: a file of translations; by default it makes them.")
    start(main, "workdir", "model", "text", "output", "target")
