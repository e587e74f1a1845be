"""What tokens contribute, weights times norms of what they carry: of every attention block of a run, and of pre-trained models.

    ‖w_ij f_h(x_j)‖ of each head, ‖Σ_h …‖ of all, with the residual connection, after layer normalisation, through the feed-forward
    net; and how much of a token's vector comes from others (mixing ratios)

Kobayashi et al. 2020, 2021 and 2024; `ops.norms` and `ops.contributions` have the formulas, and `token_kinds` what norms have to do
with which token it is.

    python -m attention_variants.analysis.norms --workdir=runs/demo       # pictures and norms.json below runs/demo/figures/norms
    python -m attention_variants.analysis.norms --model=FOLDER --text=FILE --output=DIR    # BERT, RoBERTa, DistilBERT, Marian
"""

import itertools
import json
import pathlib
from collections import Counter
from typing import NamedTuple

import numpy as np
from absl import flags

from attention_variants.analysis import heads, pretrained, start, token_kinds
from attention_variants.analysis.blocks import Block, Norms, Through, blocks, feed_forwards, measure, own_sources, through
from attention_variants.analysis.token_kinds import Pairs
from attention_variants.errors import InputError
from attention_variants.figures import norms as figures
from attention_variants.figures.alignment import by_layer_and_head
from attention_variants.models.layers import activation
from attention_variants.train import runs
from attention_variants.train.workdir import write_json

SHOWN = 64  # tokens of a map
THROUGH = 8  # examples that are followed through feed-forward nets
BY_HEAD = ("norm of f(x)", "norm given", "variation of f(x)")


class Layer(NamedTuple):
    """What is known of an attention layer, of a batch.

    Attributes:
      name: "encoder_0_self_attention", say. norms: of its `block`.
      real_BQ: which queries are tokens. queries, keys: names of tokens, of each example. kind_BQ, kind_BS: their kinds, "" of none.
      pairs: of queries and keys, of each kind of key.
      through: the first examples' contributions through the feed-forward net; empty where none follows that `through` could follow.
    """

    name: str
    block: Block
    norms: Norms
    real_BQ: np.ndarray
    queries: list[list[str]]
    keys: list[list[str]]
    kind_BQ: np.ndarray
    kind_BS: np.ndarray
    pairs: Pairs
    through: list[Through]

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")

    @property
    def stack(self) -> str:
        """ "encoder self attention", say: the layers that see the same tokens."""
        side, _, *kind = self.name.split("_")
        return " ".join([side, *kind])

    @property
    def side(self) -> str:
        """Whose tokens its keys are."""
        return "encoder" if "cross" in self.name else self.name.split("_")[0]


def read(params, found: dict, config) -> list[Layer]:
    """The layers of a model, in its order.

    Args:
      found: by layer a trace, which queries are real and names of each example's keys. config: the model's.
    """
    around = blocks(params, {name: trace for name, (trace, *_) in found.items()}, config)
    nets, read = feed_forwards(params, around), []
    for name, block in around.items():
        (trace, real_BQ, keys), own = found[name], own_sources(name)
        queries = found[name.replace("cross", "self")][2]
        norms = measure(block, own=own, epsilon=config.epsilon)
        seen_BS = ((np.asarray(block.weights_BHQS) > 0).any(1) & real_BQ[..., None]).any(1)
        kind_BQ, kind_BS = token_kinds.kinds(queries, real_BQ), token_kinds.kinds(keys, seen_BS)
        pairs = token_kinds.pairs(norms, real_BQ, kind_BS)
        given = dict(activation=activation(config.activation), own=own, epsilon=config.epsilon)
        follow = lambda example: through(block, example, nets[name], **given)  # noqa: B023 - called here
        followed = [follow(example) for example in range(min(THROUGH, len(real_BQ)))] if name in nets else []
        if followed and not _adds_up(followed, trace["layer_BQD"], real_BQ):
            followed = []  # the net does more than its two matrices, as that of `row_transformer_authors` does
        read.append(Layer(name, block, norms, real_BQ, queries, keys, kind_BQ, kind_BS, pairs, followed))
    return read


def _adds_up(followed: list[Through], layer_BQD, real_BQ: np.ndarray) -> bool:
    tolerance = 0.05 if layer_BQD.dtype == "bfloat16" else 1e-3
    rows = zip(followed, np.asarray(layer_BQD, np.float32), real_BQ, strict=False)
    off = max(abs(of.total_QD - layer_QD)[real_Q].max(initial=0.0) for of, layer_QD, real_Q in rows)
    return bool(off < tolerance * abs(layer_BQD).max())


def variation(length: np.ndarray) -> float:
    """The coefficient of variation, standard deviation over mean."""
    return float(np.std(length) / np.mean(length))


def numbers(layer: Layer) -> dict:
    """What there is to say of a layer: how much norms vary, whether weights make up for them, who receives what, and who mixes."""
    block, found, real_BQ, real_BS = layer.block, layer.norms, layer.real_BQ, layer.kind_BS != ""
    lengths_BSH = np.asarray(found.lengths_BHS).swapaxes(1, 2)[real_BS]
    mean = lambda map_BHQS: [float(x) for x in np.asarray(map_BHQS).swapaxes(1, 2)[real_BQ].sum(-1).mean(0)]
    said = {
        "variation of x": variation(np.linalg.norm(np.asarray(block.x_BSD, np.float32), axis=-1)[real_BS]),
        "variation of f(x)": [variation(of_head) for of_head in lengths_BSH.T],
        "norm of f(x)": [float(x) for x in lengths_BSH.mean(0)],
        "expansion": float(block.expansion),
        "norm given": mean(found.weighted_BHQS),
        "rank correlation of weight and norm": token_kinds.rank_correlation(layer.pairs),
        "received": token_kinds.received(found, real_BQ, layer.kind_BS),
        "mixing": token_kinds.mixing(found, real_BQ, layer.kind_BQ),
    }
    return said | ({"rank correlation through the feed-forward net": _kept(layer)} if layer.through else {})


def _kept(layer: Layer) -> dict[str, float]:
    """How much the maps further on are like the one after the attention block: Spearman's, mean over examples."""
    maps = [
        {name: map_QS[real_Q] for name, map_QS in _maps(of).items()}
        for of, real_Q in zip(layer.through, layer.real_BQ, strict=False)
    ]
    first, *further = maps[0]
    # What a query may not see, it has nothing of anywhere.
    rho = lambda of, name: token_kinds.spearman(of[first][of[first] > 0], of[name][of[first] > 0])
    return {name: float(np.nanmean(np.array([rho(of, name) for of in maps], float))) for name in further}


def _maps(of: Through) -> dict[str, np.ndarray]:
    """Of contributions through a feed-forward net, by where they are: norms (Q, S)."""
    maps = {"after attention block": of.block_QS, "after the net": of.net_QS, "with its residual": of.residual_QS}
    maps |= {} if of.normalised_QS is None else {"after its layer normalisation": of.normalised_QS}
    return {name: np.asarray(map_QS) for name, map_QS in maps.items()}


def example(found: Norms) -> dict[str, np.ndarray]:
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
    return {name: np.asarray(map_QS) for name, map_QS in maps.items()}


def frequencies(read: list[Layer], count: dict) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """By stack of layers, (B, S): ranks of the keys (`token_kinds.ranks`), and the mean over layers of `token_kinds.of_tokens`."""
    stacks = {}
    for stack, of in itertools.groupby(sorted(read, key=lambda layer: layer.stack), key=lambda layer: layer.stack):
        layers = list(of)
        first, own = layers[0], own_sources(layers[0].name)
        if first.side in count:
            values = [token_kinds.of_tokens(layer.norms, layer.real_BQ, own=own) for layer in layers]
            mean = {name: np.mean([of[name] for of in values], 0) for name in values[0]}
            stacks[stack] = token_kinds.ranks(first.keys, first.kind_BS, count[first.side]), mean
    return stacks


def counts(task) -> dict[str, dict[str, int]]:
    """By side, "encoder" and "decoder", how often each token stands in the training split; nothing of rows of a table."""
    if not hasattr(task, "vocabulary"):
        return {}
    found = {"encoder": Counter(), "decoder": Counter()}
    for batch in task.batches("train", seed=task.seed):  # an epoch, in whatever order
        for side, tokens in zip(found, ("source", "target"), strict=True):  # of classification the second is labels: no layer asks
            found[side].update(batch[tokens].ravel().tolist())  # padding, too, which is no key that has a rank
    return {side: {task.vocabulary.pieces([token])[0]: n for token, n in of.items()} for side, of in found.items()}


def pictures(read: list[Layer], said: dict[str, dict], frequent: dict, folder: pathlib.Path) -> list[pathlib.Path]:
    """Maps of the first example for every layer, and the numbers of all layers: in a folder."""
    paths = []
    for layer in read:
        rows, columns = layer.queries[0][: min(SHOWN, int(layer.real_BQ[0].sum()))], layer.keys[0]
        shown = {layer.name: (layer.title, example(layer.norms), columns)}
        if layer.through:
            columns = columns if own_sources(layer.name) else [*columns, "itself"]
            shown[f"{layer.name}_feed_forward"] = f"{layer.title} and feed-forward net", _maps(layer.through[0]), columns
        for name, (title, maps, columns) in shown.items():
            at_S = np.r_[: min(SHOWN, len(layer.keys[0])), -1 : len(columns) - len(layer.keys[0]) - 1]
            paths.append(folder / f"{name}.png")
            cut = {what: map_QS[: len(rows), at_S] for what, map_QS in maps.items()}
            figures.maps(paths[-1], cut, rows, [columns[at] for at in at_S], title=title)
    path = lambda name: paths.append(folder / f"{name}.png") or paths[-1]
    by_stack = sorted(said, key=lambda name: ("decoder" in name, "cross" in name))
    figures.mixing(path("mixing"), {name: said[name]["mixing"] for name in by_stack})
    figures.weights_and_norms(path("weights_and_norms"), {layer.name: layer.pairs.few(3000) for layer in read})
    heads = max(len(of["norm given"]) for of in said.values())  # of which sides may have several numbers
    filled = lambda row: row + [np.nan] * (heads - len(row))
    by_head = {what: np.array([filled(of[what]) for of in said.values()]) for what in BY_HEAD}
    by_layer_and_head(path("heads"), by_head, title="by head, mean over tokens", layers=list(said))
    if frequent:
        figures.frequencies(path("frequency"), frequent)
    return paths


def report(params, found: dict, config, count: dict, folder: pathlib.Path) -> list[pathlib.Path]:
    """All pictures and norms.json, in a folder. Arguments as of `read` and `frequencies`."""
    layers = read(params, found, config)
    said = {layer.name: numbers(layer) for layer in layers}
    frequent = frequencies(layers, count)
    paths = pictures(layers, said, frequent, folder)
    ranked = {stack: token_kinds.by_frequency(*of) for stack, of in frequent.items()}
    write_json(folder / "norms.json", {"layers": said, "rank correlation with frequency rank": ranked})
    print(json.dumps({name: {what: round(share, 4) for what, share in of["mixing"]["all"].items()} for name, of in said.items()}))
    return [*paths, folder / "norms.json"]


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """Maps of an example and numbers of many, of every layer of a run: pictures and norms.json below its figures/norms."""
    loaded = runs.Loaded(workdir, tell)
    found = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    folder = loaded.workdir / "figures" / "norms"
    return report(loaded.params, found, loaded.task.model.config, counts(loaded.task), folder)


def draw_pretrained(model: str, text: str | None, output: str | None, target: str | None = None) -> list[pathlib.Path]:
    """The same of a pre-trained model's folder on the lines of a file, into a folder."""
    for flag, value in (("--text", text), ("--output", output)):
        if not value:
            raise InputError(f"--model is given without {flag}; expected --model=FOLDER --text=FILE --output=DIR")
    if pathlib.Path(output).is_file():
        raise InputError(f"--output is {output}, a file; expected a folder, which is made where there is none")
    traced = pretrained.trace(model, text, target)
    return report(traced.params, traced.layers, traced.config, traced.counts, pathlib.Path(output))


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
