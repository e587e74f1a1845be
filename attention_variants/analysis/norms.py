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

MOST = 200_000  # pairs that a rank correlation is of, drawn evenly: more change no digit that is shown
SHOWN = 64  # tokens of a map


def kind_of(token: str) -> str:
    """What attention treats alike: a special token ([CLS], </s>) is a kind of its own, "punctuation", or "other"."""
    bare = token.removeprefix("##").lstrip("▁Ġ")
    if token[:1] + token[-1:] in ("[]", "<>") and len(token) > 2:
        return "other" if "unk" in token.lower() else token
    return "other" if any(map(str.isalnum, bare)) or not bare else "punctuation"


class Pairs(NamedTuple):
    """Queries and keys that they see, in every head: weight, ‖f_h(x_j)‖, and the kind of the key."""

    weight_N: np.ndarray
    length_N: np.ndarray
    kind_N: np.ndarray

    def few(self, most: int) -> "Pairs":
        """At most so many of them, drawn evenly, in their order."""
        size = len(self.weight_N)
        return self if size <= most else Pairs(*(of[np.sort(np.random.default_rng(0).choice(size, most, False))] for of in self))


def pairs(found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> Pairs:
    """Of each kind of key at most `MOST`; a key that a query may not see has no weight.

    Args: real_BQ: which queries are tokens. kind_BS: of each key, "" where it is none.
    """
    weights_BHQS, lengths_BHS, drawn = np.asarray(found.weights_BHQS), np.asarray(found.lengths_BHS), []
    for kind in np.unique(kind_BS[kind_BS != ""]).tolist():
        at = np.flatnonzero((weights_BHQS > 0) & real_BQ[:, None, :, None] & (kind_BS == kind)[:, None, None])
        at = at if len(at) <= MOST else np.random.default_rng(0).choice(at, MOST, replace=False)
        b, h, q, s = np.unravel_index(at, weights_BHQS.shape)
        drawn.append(Pairs(weights_BHQS[b, h, q, s], lengths_BHS[b, h, s], np.full(len(at), kind)))
    return Pairs(*(np.concatenate(of) for of in zip(*drawn, strict=True)))


def rank_correlation(of: Pairs) -> dict[str, float | None]:
    """Spearman's, between weight and norm, by kind of key; None where one of them is the same everywhere."""
    found = {}
    for kind in np.unique(of.kind_N).tolist():
        weight_N, length_N = (values[of.kind_N == kind] for values in of[:2])
        varies = len(weight_N) > 1 and np.ptp(weight_N) > 0 and np.ptp(length_N) > 0
        found[kind] = float(stats.spearmanr(weight_N, length_N)[0]) if varies else None
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


def numbers(block: Block, found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray, of: Pairs) -> dict:
    """What there is to say of a layer: how much norms vary, whether weights make up for them, who receives what, and who mixes."""
    real_BS = kind_BS != ""
    lengths_BSH = np.asarray(found.lengths_BHS).swapaxes(1, 2)[real_BS]
    mean = lambda map_BHQS: [float(x) for x in np.asarray(map_BHQS).swapaxes(1, 2)[real_BQ].sum(-1).mean(0)]
    return {
        "variation of x": variation(np.linalg.norm(np.asarray(block.x_BSD, np.float32), axis=-1)[real_BS]),
        "variation of f(x)": [variation(of_head) for of_head in lengths_BSH.T],
        "norm of f(x)": [float(x) for x in lengths_BSH.mean(0)],
        "expansion": float(block.expansion),
        "norm given": mean(found.weighted_BHQS),
        "rank correlation of weight and norm": rank_correlation(of),
        "received": received(found, real_BQ, kind_BS),
        "mixing": {name: float(np.asarray(found.mixing_BQ[name])[real_BQ].mean()) for name in MIXING if name in found.mixing_BQ},
    }


def kinds(keys: Sequence[Sequence[str]], visible_BS: np.ndarray) -> np.ndarray:
    """The kind of each key that any query may see, (B, S), else ""; of rows of a table, of which some have names, "other"."""
    named = [[kind_of(key) for key in row] + ["other"] * (visible_BS.shape[1] - len(row)) for row in keys]
    return np.where(visible_BS, np.array([row[: visible_BS.shape[1]] for row in named]), "")


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
    if pathlib.Path(output).is_file():
        raise InputError(f"--output is {output}, a file; expected a folder, which is made where there is none")
    traced = pretrained.trace(model, text, target)
    return report(traced.params, traced.layers, traced.config, pathlib.Path(output))


def report(params, found: dict, config, folder: pathlib.Path) -> list[pathlib.Path]:
    """The same of any model of our layers.

    Args:
      found: by layer a trace, which queries are real and names of each example's keys.
      config: the model's, of which `norm` and `epsilon` are read.
    """
    read, paths, scatter, by_head = {}, [], {}, {}
    for name, block in blocks(params, {name: trace for name, (trace, *_) in found.items()}, config).items():
        _, real_BQ, keys = found[name]
        measured = measure(block, own=own_sources(name), epsilon=config.epsilon)
        seen_BS = (np.asarray(block.weights_BHQS) > 0).any(1) & real_BQ[..., None]
        kind_BS = kinds(keys, seen_BS.any(1))
        of = pairs(measured, real_BQ, kind_BS)
        read[name], scatter[name] = numbers(block, measured, real_BQ, kind_BS, of), of.few(3000)
        for what in ("norm of f(x)", "norm given", "variation of f(x)"):
            by_head.setdefault(what, []).append(read[name][what])
        paths.append(folder / f"{name}.png")
        queries = found[name.replace("cross", "self")][2][0][: min(SHOWN, int(real_BQ[0].sum()))]
        shown = example(measured, np.s_[: len(queries), : min(SHOWN, len(keys[0]))])
        figures.maps(paths[-1], shown, queries, keys[0][:SHOWN], title=name.replace("_", " "))
    mixing = {name: numbers["mixing"] for name, numbers in read.items()}
    paths += [folder / f"{name}.png" for name in ("mixing", "weights_and_norms", "heads")]
    figures.mixing(paths[-3], mixing)
    figures.weights_and_norms(paths[-2], scatter)
    heads = max(map(len, by_head["norm given"]))  # of which sides may have several numbers
    by_head = {what: np.array([row + [np.nan] * (heads - len(row)) for row in rows]) for what, rows in by_head.items()}
    by_layer_and_head(paths[-1], by_head, title="by head, mean over tokens", layers=list(read))
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
    if workdir and (text or output or target):
        raise InputError("--text, --output and --target belong to --model; expected --workdir alone")
    return draw(workdir) if workdir else draw_pretrained(model, text, output, target)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    flags.DEFINE_string("model", None, "A pre-trained model: a folder as Hugging Face's save_pretrained writes it.")
    flags.DEFINE_string("text", None, "With --model: a file of lines, of which the first 64 are read.")
    flags.DEFINE_string("output", None, "With --model: the folder for pictures and norms.json.")
    flags.DEFINE_string("target", None, "With --model, of Marian: a file of translations; by default it makes them.")
    start(main, "workdir", "model", "text", "output", "target")
