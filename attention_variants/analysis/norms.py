"""What tokens contribute, weights times norms of what they carry: of every attention block of a run, and of pre-trained models.

    ‖w_ij f_h(x_j)‖ of each head, ‖Σ_h …‖ of all, with the residual connection, after layer normalisation, through the feed-forward
    net; and how much of a token's vector comes from others (mixing ratios)

Kobayashi et al. 2020, 2021 and 2024; `ops.norms` and `ops.contributions` have the formulas, and `token_kinds` what norms have to do
with which token it is.

    python -m attention_variants.analysis.norms --workdir=runs/demo       # pictures and norms.json below runs/demo/figures/norms
    python -m attention_variants.analysis.norms --model=FOLDER --text=FILE --output=DIR    # BERT, RoBERTa, DistilBERT, Marian
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from attention_variants.analysis import heads, pretrained, run_or_model, start, token_kinds
from attention_variants.analysis.blocks import Block, Norms, Through, blocks, feed_forwards, measure, own_sources, through
from attention_variants.analysis.token_kinds import Pairs
from attention_variants.errors import InputError
from attention_variants.figures import norms as figures
from attention_variants.figures.alignment import by_layer_and_head
from attention_variants.models.layers import activation
from attention_variants.train import runs
from attention_variants.train.workdir import write_json

SHOWN = 64  # tokens of a map
THROUGH = 4  # examples that are followed through feed-forward nets
SIDES = {"encoder": "source", "decoder": "target"}
BY_HEAD = ("norm of f(x)", "norm given", "variation of f(x)")


class Layer(NamedTuple):
    """What is known of an attention layer, of a batch.

    Attributes:
      name: "encoder_0_self_attention", say. norms: of its `block`.
      real_BQ: which queries are tokens. queries, keys: names of tokens, of each example. kind_BQ, kind_BS: their kinds, "" of none.
      pairs: of queries and keys, of each kind of key.
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
    layers = []
    for name, block in blocks(params, {name: trace for name, (trace, *_) in found.items()}, config).items():
        _, real_BQ, keys = found[name]
        queries = found[name.replace("cross", "self")][2]
        norms = measure(block, own=own_sources(name), epsilon=config.epsilon)
        seen_BS = ((np.asarray(block.weights_BHQS) > 0).any(1) & real_BQ[..., None]).any(1)
        kind_BQ, kind_BS = token_kinds.kinds(queries, real_BQ), token_kinds.kinds(keys, seen_BS)
        pairs = token_kinds.pairs(norms, real_BQ, kind_BS)
        layers.append(Layer(name, block, norms, real_BQ, queries, keys, kind_BQ, kind_BS, pairs))
    return layers


def follow(params, layers: list[Layer], config) -> dict[str, list[dict[str, np.ndarray]]]:
    """By layer that a feed-forward net follows, for the first examples: maps (Q, S) of contributions, by how far they have come.

    Of cross-attention the last column is the token itself. Nothing of a config whose nets are not plain.
    """
    nets = feed_forwards(params, {layer.name: layer.block for layer in layers}) if config.plain_feed_forward else {}
    given = dict(activation=activation(config.activation), epsilon=config.epsilon)
    followed = {}
    for layer in layers:
        if layer.name in nets:
            own, net = own_sources(layer.name), nets[layer.name]
            filled = layer.real_BQ.any(1)  # a row that fills the batch up has no queries
            examples = [_short(layer, example) for example in np.flatnonzero(filled)[:THROUGH].tolist()]
            found = [(through(block, 0, net, own=own, **given), *sizes) for block, *sizes in examples]
            followed[layer.name] = [_maps(of, queries, [*range(keys)] + [-1] * (not own)) for of, queries, keys in found]
    return followed


def _short(layer: Layer, example: int) -> tuple[Block, int, int]:
    """A block of one example, without most of what fills its row up, and the numbers of its queries and keys."""
    last = lambda there: int(np.flatnonzero(there).max(initial=-1)) + 1  # a key of which nobody takes anything may stand before it
    queries = last(layer.real_BQ[example])
    keys = queries if own_sources(layer.name) else max(last(layer.kind_BS[example] != ""), len(layer.keys[example]))
    at_Q, at_S = (np.s_[example : example + 1, : -(-size // 8) * 8] for size in (queries, keys))  # few sizes are few programs
    block = layer.block
    rows = dict(before_BQD=block.before_BQD[at_Q], after_BQD=block.after_BQD[at_Q])
    columns = dict(v_BSHV=block.v_BSHV[at_S], x_BSD=block.x_BSD[at_S])
    return block._replace(weights_BHQS=block.weights_BHQS[at_Q[0], :, at_Q[1], at_S[1]], **rows, **columns), queries, keys


def _maps(of: Through, queries: int, columns: list[int]) -> dict[str, np.ndarray]:
    maps = {"after attention block": of.block_QS, "after the net": of.net_QS, "with its residual": of.residual_QS}
    maps |= {} if of.normalised_QS is None else {"after its layer normalisation": of.normalised_QS}
    return {name: np.asarray(map_QS)[:queries, columns] for name, map_QS in maps.items()}


def variation(length: np.ndarray) -> float:
    """The coefficient of variation, standard deviation over mean."""
    return float(np.std(length) / np.mean(length))


def numbers(layer: Layer) -> dict:
    """What there is to say of a layer: how much norms vary, whether weights make up for them, who receives what, and who mixes."""
    block, found, real_BQ, real_BS = layer.block, layer.norms, layer.real_BQ, layer.kind_BS != ""
    lengths_BSH = np.asarray(found.lengths_BHS).swapaxes(1, 2)[real_BS]
    mean = lambda map_BHQS: [float(x) for x in np.asarray(map_BHQS).swapaxes(1, 2)[real_BQ].sum(-1).mean(0)]
    return {
        "variation of x": variation(np.linalg.norm(np.asarray(block.x_BSD, np.float32), axis=-1)[real_BS]),
        "variation of f(x)": [variation(of_head) for of_head in lengths_BSH.T],
        "norm of f(x)": [float(x) for x in lengths_BSH.mean(0)],
        "expansion": float(block.expansion),
        "norm given": mean(found.weighted_BHQS),
        "rank correlation of weight and norm": token_kinds.rank_correlation(layer.pairs),
        "received": token_kinds.received(found, real_BQ, layer.kind_BS),
        "mixing": token_kinds.mixing(found, real_BQ, layer.kind_BQ),
    }


def kept(followed: list[dict[str, np.ndarray]]) -> dict[str, float | None]:
    """How much maps further on are like the one after the attention block: Spearman's, mean over the examples that have one."""
    first, *further = followed[0]

    def one(maps, name):
        seen_QS = maps[first] > 0  # what a query may not see, it has nothing of anywhere
        few = np.s_[:: -(-seen_QS.sum() // token_kinds.MOST) or 1]
        return token_kinds.spearman(maps[first][seen_QS][few], maps[name][seen_QS][few])

    rhos = {name: [rho for maps in followed if (rho := one(maps, name)) is not None] for name in further}
    return {name: float(np.mean(of)) if of else None for name, of in rhos.items()}


def example(layer: Layer) -> dict[str, np.ndarray]:
    """Of the first example, side by side: weights, norms of what keys carry, and of both together.

    Of cross-attention a residual connection comes from none of the keys, so nothing is shown with it.
    """
    found = layer.norms
    weights_QS, length_S = np.asarray(found.weights_BHQS[0]).mean(0), np.asarray(found.lengths_BHS[0]).mean(0)
    maps = {
        "weight, mean": weights_QS,
        "norm of f(x), mean": np.broadcast_to(length_S, weights_QS.shape),
        "weight × norm, heads summed": found.summed_BQS[0],
    }
    if own_sources(layer.name):
        maps["with residual"] = found.residual_BQS[0]
    if found.normalised_BQS is not None:
        maps["after layer normalisation"] = found.normalised_BQS[0]
    return {name: np.asarray(map_QS) for name, map_QS in maps.items()}


def frequencies(layers: list[Layer], count: dict) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """By stack of layers, (B, S): ranks of the keys (`token_kinds.ranks`), and the mean over layers of `token_kinds.of_tokens`."""
    stacks = {}
    for layer in layers:
        if layer.side in count:
            stacks.setdefault(layer.stack, []).append(layer)
    found = {}
    for stack, (first, *others) in stacks.items():
        values = [token_kinds.of_tokens(of.norms, of.real_BQ, own=own_sources(of.name)) for of in (first, *others)]
        mean = {name: np.mean([of[name] for of in values], 0) for name in values[0]}
        found[stack] = token_kinds.ranks(first.keys, first.kind_BS, count[first.side]), mean
    return found


def counts(task, sides: set[str], tell) -> dict[str, dict[str, int]]:
    """By side of a model, "encoder" or "decoder", how often each token stands in the training split; nothing of rows of a table.

    Nor of a split that cannot be read any more, which is told: it takes this alone.
    """
    found = {}
    try:
        for side in sides if hasattr(task, "vocabulary") else ():
            count_V = np.zeros(len(task.vocabulary), int)
            for batch in task.batches("train", seed=task.seed):  # one epoch, in whatever order
                count_V += np.bincount(batch[SIDES[side]].ravel(), minlength=len(count_V))
            found[side] = {task.vocabulary.pieces([token])[0]: int(count_V[token]) for token in np.flatnonzero(count_V)}
    except InputError as error:
        tell(f"{error}; going on without frequencies")
    return found


def pictures(
    layers: list[Layer], said: dict[str, dict], followed: dict, frequent: dict, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Maps of the first example for every layer, and the numbers of all layers: in a folder."""
    paths = []
    for layer in layers:
        queries, keys = layer.queries[0][: min(SHOWN, int(layer.real_BQ[0].sum()))], layer.keys[0][:SHOWN]
        paths.append(folder / f"{layer.name}.png")
        shown = {name: map_QS[: len(queries), : len(keys)] for name, map_QS in example(layer).items()}
        figures.maps(paths[-1], shown, queries, keys, title=layer.title)
        if layer.name in followed:
            columns = [*range(len(keys))] + [-1] * (not own_sources(layer.name))
            keys = keys if own_sources(layer.name) else [*keys, "itself"]
            paths.append(folder / f"{layer.name}_feed_forward.png")
            shown = {name: map_QS[: len(queries), columns] for name, map_QS in followed[layer.name][0].items()}
            figures.maps(paths[-1], shown, queries, keys, title=f"{layer.title} and feed-forward net")
    paths += [folder / f"{name}.png" for name in ("mixing", "weights_and_norms", "heads")]
    by_stack = sorted(said, key=lambda name: ("decoder" in name, "cross" in name))
    figures.mixing(paths[-3], {name: said[name]["mixing"] for name in by_stack})
    figures.weights_and_norms(paths[-2], {layer.name: layer.pairs.few(3000) for layer in layers})
    most = max(len(of["norm given"]) for of in said.values())  # heads, of which sides may have several numbers
    filled = lambda row: row + [np.nan] * (most - len(row))
    by_head = {what: np.array([filled(of[what]) for of in said.values()]) for what in BY_HEAD}
    by_layer_and_head(paths[-1], by_head, title="by head, mean over tokens", layers=list(said))
    if frequent:
        paths.append(folder / "frequency.png")
        figures.frequencies(paths[-1], frequent)
    return paths


def report(params, layers: list[Layer], config, count: dict, folder: pathlib.Path) -> list[pathlib.Path]:
    """All pictures and norms.json, in a folder, and mixing ratios printed.

    Args:
      config: the model's. count: as `counts` has it.
    """
    followed, frequent = follow(params, layers, config), frequencies(layers, count)
    said = {layer.name: numbers(layer) for layer in layers}
    for name, maps in followed.items():
        said[name]["rank correlation through the feed-forward net"] = kept(maps)
    paths = pictures(layers, said, followed, frequent, folder)
    ranked = {stack: token_kinds.by_frequency(*of) for stack, of in frequent.items()}
    write_json(folder / "norms.json", {"layers": said, "rank correlation with frequency rank": ranked})
    print(json.dumps({name: {what: round(share, 4) for what, share in of["mixing"]["all"].items()} for name, of in said.items()}))
    return [*paths, folder / "norms.json"]


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """Maps of an example and numbers of many, of every layer of a run: pictures and norms.json below its figures/norms."""
    loaded = runs.Loaded(workdir, tell)
    config = loaded.task.model.config
    layers = read(loaded.params, heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place), config)
    count = counts(loaded.task, {layer.side for layer in layers}, tell)
    return report(loaded.params, layers, config, count, loaded.workdir / "figures" / "norms")


def draw_pretrained(model: str, text: str, output: str, target: str | None = None) -> list[pathlib.Path]:
    """The same of a pre-trained model's folder on the lines of a file, into a folder."""
    traced = pretrained.trace(model, text, target)
    layers = read(traced.params, traced.layers, traced.config)
    return report(traced.params, layers, traced.config, traced.counts, pathlib.Path(output))


def main(workdir, model, text, output, target) -> list[pathlib.Path]:
    """What the flags say."""
    run_or_model(workdir, model, "--model=FOLDER --text=FILE --output=DIR", text=text, output=output)
    if workdir and (text or output or target):
        raise InputError("--text, --output and --target belong to --model; expected --workdir alone")
    return draw(workdir) if workdir else draw_pretrained(model, text, output, target)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    flags.DEFINE_string("model", None, "A pre-trained model: a folder as Hugging Face's save_pretrained writes it.")
    flags.DEFINE_string(
        "text", None, "With --model: a file of lines; the first 64 are traced, and all are counted, to know rare tokens."
    )
    flags.DEFINE_string("output", None, "With --model: the folder for pictures and norms.json.")
    flags.DEFINE_string("target", None, "With --model, of Marian: a file of translations; by default it makes them.")
    start(main, "workdir", "model", "text", "output", "target")
