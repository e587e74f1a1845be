"""Word alignments that cross-attention holds, of its weights and of the norms of what it takes from each source token.

Kobayashi et al. 2020, "Attention is not only a weight", and 2021 for what is after layer normalisation. Targets are given;
every target word is linked with the source word that it has most of, by layer and by head; links are judged by their error rate
(AER), beside what a link at random, the diagonal, and the best single links come to. With a run of the other direction beside it,
the links of both are also made one.

    python -m attention_variants.analysis.alignment --workdir=runs/demo          # dates, whose alignments are known
    python -m attention_variants.analysis.alignment --workdir=runs/en-fr         # English-French, Hansards: downloaded
    python -m attention_variants.analysis.alignment --workdir=runs/mine --links=FILE --text=FILE
    python -m attention_variants.analysis.alignment --workdir=runs/en-fr --back=runs/fr-en      # and links of both made one

Numbers in alignment.json, pictures beside it, below the run's figures/alignment.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from attention_variants.analysis import blocks, start
from attention_variants.data import gold_alignments, links
from attention_variants.data.links import Counts, Gold, Links
from attention_variants.errors import InputError
from attention_variants.figures import alignment as figures
from attention_variants.train import runs
from attention_variants.train.workdir import write_json

# Which decoder steps stand for target tokens: AWO (align with output) takes the one that predicts a token, AWI (align with input)
# the one that is fed with it. The first step is fed with BEGIN, the last predicts END.
STEPS = {"AWO": np.s_[:-1], "AWI": np.s_[1:]}


def to_words(map_TS: np.ndarray, source_S, target_T, setting: str) -> np.ndarray:
    """The map from target words (rows) to source words and, in the last column, END; of as many heads as stand in front.

    What the pieces of a source word have is summed, and of that the mean is taken over the pieces of a target word.

    Args:
      map_TS: (…, T + 1, S + 1), a row for each decoder step, a column for each source token, END last.
      source_S, target_T: the number of the word that each token is of, without END; 0, 1, … in order.
      setting: "AWO" or "AWI".

    Raises:
      ValueError: a map of another shape, or words without a token.
    """
    map_TS, source_S, target_T = np.asarray(map_TS, float), np.asarray(source_S, int), np.asarray(target_T, int)
    if map_TS.shape[-2:] != (len(target_T) + 1, len(source_S) + 1):
        raise ValueError(
            f"a map of shape {map_TS.shape}; expected (…, {len(target_T) + 1}, {len(source_S) + 1}) as there are tokens"
        )
    of_source_SW, of_target_TW = _membership(np.append(source_S, source_S.max(initial=-1) + 1)), _membership(target_T)
    return (of_target_TW / of_target_TW.sum(0)).T @ (map_TS[..., STEPS[setting], :] @ of_source_SW)


def links_of(map_TS: np.ndarray, source_S, target_T, setting: str) -> Links:
    """One link for each target word, with the source word that it has most of; none where END has most. Arguments as `to_words`."""
    words_TS = to_words(map_TS, source_S, target_T, setting)
    return _links(words_TS.argmax(-1), words_TS.shape[-1] - 1)


def _links(best_T: np.ndarray, end: int) -> Links:
    """The links of target words with the source words of these numbers, of which `end` is none."""
    return {(s, t) for t, s in enumerate(best_T.tolist()) if s != end}


def _membership(word_T: np.ndarray) -> np.ndarray:
    """(tokens, words): 1.0 where a token is of a word."""
    if word_T[:1].any() or not np.isin(np.diff(word_T), (0, 1)).all():
        raise ValueError(f"words {word_T.tolist()}; expected numbers from 0 in order, none left out")
    return (word_T[:, None] == np.arange(word_T.max(initial=-1) + 1)).astype(float)


class Found(NamedTuple):
    """What the maps of a run come to, by kind: "weights", "norms", "norms after layer normalisation".

    Attributes:
      gold: the sentence pairs.
      best: by kind and setting, for each pair, (L, 1 + H, target words): the source word that a target word has most of, or END, of
        each layer as a whole and then of each head, where the kind has any.
      first: by kind and setting, the maps of the first pair between words, (L, target words, source words and END).
      sizes: by kind of norm, (L, 1 + H), the mean of a map's entries; that of weights is the same for all.
    """

    gold: Gold
    best: dict[str, dict[str, list[np.ndarray]]]
    first: dict[str, dict[str, np.ndarray]]
    sizes: dict[str, np.ndarray]

    def links(self, kind: str, setting: str, layer: int, head: int = 0) -> list[Links]:
        """Of each pair; head 0 is the layer as a whole, 1 the first head."""
        rows = zip(self.best[kind][setting], self.gold.source, strict=True)
        return [_links(best[layer, head], len(source)) for best, source in rows]

    def counts(self, kind: str, setting: str) -> list[list[Counts]]:
        """For each layer, of the layer as a whole and then of each head."""
        layers, heads, _ = self.best[kind][setting][0].shape
        judged = lambda *at: links.count(self.links(kind, setting, *at), self.gold)
        return [[judged(layer, head) for head in range(heads)] for layer in range(layers)]

    def rates(self, kind: str, setting: str) -> np.ndarray:
        """Error rates, (L, 1 + H)."""
        return np.array([[counts.error_rate for counts in layer] for layer in self.counts(kind, setting)])

    def chosen(self, kind: str) -> int:
        """The layer whose map is largest in the mean, which takes no gold."""
        return int(self.sizes[kind][:, 0].argmax())


def maps(block: blocks.Block, epsilon: float) -> dict[str, np.ndarray]:
    """By kind, the maps (B, 1 + H, T + 1, S + 1) of a cross-attention layer: of all heads first, then of each."""
    found = blocks.measure(block, own=False, epsilon=epsilon)
    stack = lambda whole_BTS, heads_BHTS: np.concatenate([np.asarray(whole_BTS)[:, None], np.asarray(heads_BHTS)], 1)
    by_kind = {
        "weights": stack(found.weights_BHQS.mean(1), found.weights_BHQS),
        "norms": stack(found.summed_BQS, found.weighted_BHQS),
    }
    if found.normalised_BQS is not None:
        by_kind["norms after layer normalisation"] = np.asarray(found.normalised_BQS)[:, None]
    return by_kind


def align(task, params, gold: Gold, place, *, characters: bool = False) -> Found:
    """What the cross-attention of a translation task's model makes of sentence pairs whose right links are known.

    Args:
      characters: the words of `gold` are characters.

    Raises:
      InputError: characters, where tokens are longer.
    """
    texts = [[("" if characters else " ").join(words) for words in side] for side in (gold.source, gold.target)]
    owners = [task.vocabulary.owners(side, characters) for side in texts]
    if characters and any(np.diff(own).max(initial=0) > 1 for side in owners for own in side):
        raise InputError("the right links of dates are of characters, and this run's tokens are longer; expected task.subwords=0")
    config, best, first, sizes = task.model.config, {}, {}, {}
    for rows, layers in task.forced(params, texts, place):
        cross = {name: trace for name, trace in layers.items() if not blocks.own_sources(name)}
        found = blocks.blocks(params, cross, config)
        of_layers = [maps(block, config.epsilon) for block in found.values()]
        for kind in of_layers[0]:
            map_BLKTS = np.stack([of[kind] for of in of_layers], 1)
            for n, map_LKTS in zip(rows.tolist(), map_BLKTS, strict=True):
                if n >= 0:
                    source_S, target_T = owners[0][n], owners[1][n]
                    map_LKTS = map_LKTS[..., : len(target_T) + 1, : len(source_S) + 1]
                    if kind != "weights":
                        sizes.setdefault(kind, {})[n] = map_LKTS.mean((2, 3))
                    for setting in STEPS:
                        words_LKTS = to_words(map_LKTS, source_S, target_T, setting)
                        best.setdefault(kind, {}).setdefault(setting, {})[n] = words_LKTS.argmax(-1)
                        if n == 0:
                            first.setdefault(kind, {})[setting] = words_LKTS[:, 0]
    pairs = range(len(gold.sure))
    best = {kind: {setting: [of[n] for n in pairs] for setting, of in settings.items()} for kind, settings in best.items()}
    return Found(gold, best, first, {kind: np.mean([of[n] for n in pairs], 0) for kind, of in sizes.items()})


def both(forward: Found, backward: Found) -> dict[str, dict[str, dict[str, float]]]:
    """By kind, setting and rule (`links.SYMMETRISED`), the error rates of the links of both directions, made one.

    Of each direction they are those of the layer that has the largest mean norm, which takes no gold; of weights, too.
    """
    of = lambda found, kind, setting: found.links(kind, setting, found.chosen(kind if kind in found.sizes else "norms"))
    rate = lambda rule, *ways: links.count([rule(*pair) for pair in zip(*ways, strict=True)], forward.gold).error_rate
    rules = lambda *ways: {name: rate(rule, *ways) for name, rule in links.SYMMETRISED.items()}
    return {
        kind: {setting: rules(of(forward, kind, setting), links.flipped(of(backward, kind, setting))) for setting in STEPS}
        for kind in forward.best
        if kind in backward.best
    }


def known(loaded: runs.Loaded, links_file: str | None, text: str | None, base: int, reverse: bool) -> tuple[Gold, bool]:
    """(sentence pairs whose right links are known, whether their words are characters), of files or of the run's own data."""
    if bool(links_file) != bool(text):
        raise InputError("--links and --text belong together; expected both, or neither for data whose links are known")
    if links_file:
        return gold_alignments.read(links_file, text, base=base, reverse=reverse), False
    source, data = loaded.task.source, loaded.task.data
    if hasattr(source, "gold"):
        return source.gold(source.read(data, "test")), True
    if (getattr(data, "source", ""), getattr(data, "target", "")) == ("en", "fr"):
        return gold_alignments.english_french(), False
    raise InputError(
        "nobody knows the right links of this run's data; expected --links=FILE and --text=FILE, or a run of dates or en-fr"
    )


def load(workdir, tell) -> runs.Loaded:
    """A finished run of translation."""
    loaded = runs.Loaded(workdir, tell)
    if not hasattr(loaded.task, "forced"):
        raise InputError(f"{workdir} is no run of translation; expected one, whose cross-attention has alignments")
    return loaded


def draw(workdir, links_file=None, text=None, base=1, reverse=False, back=None, tell=print) -> list[pathlib.Path]:
    """Error rates by layer and head, maps of the first pair with its right links, and all numbers."""
    if not workdir:
        raise InputError("--workdir is missing; expected the folder of a training run")
    loaded = load(workdir, tell)
    gold, characters = known(loaded, links_file, text, base, reverse)
    if back and characters:
        raise InputError(f"--back={back} is given, and nobody translates these data back; expected --workdir alone")
    other = load(back, tell) if back else None
    if other:
        there, here = ((getattr(of.task.data, "source", ""), getattr(of.task.data, "target", "")) for of in (other, loaded))
        if there != here[::-1]:
            raise InputError(f"--back={back} translates {' to '.join(there)}; expected {' to '.join(here[::-1])}, the other way")
    found = align(loaded.task, loaded.params, gold, loaded.place, characters=characters)
    folder = loaded.workdir / "figures" / "alignment"
    between = {name: counts.error_rate for name, counts in links.bounds(gold).items()}
    report = {"pairs": len(gold.sure), **between}
    report |= {kind: {setting: found.rates(kind, setting).tolist() for setting in STEPS} for kind in found.best}
    of_both = lambda layers: [[(of.precision, of.recall) for of in layer] for layer in layers]
    report["precision and recall"] = {
        kind: {setting: of_both(found.counts(kind, setting)) for setting in STEPS} for kind in found.best
    }
    report["mean"] = {kind: size.tolist() for kind, size in found.sizes.items()}
    report["chosen"] = {kind: found.chosen(kind) for kind in found.sizes}
    paths = [folder / f"{setting}.png" for setting in STEPS]
    columns = ["all", *map(str, range(found.sizes["norms"].shape[1] - 1))]
    words, layer = (gold.source[0], gold.target[0], gold.sure[0], gold.possible[0]), found.chosen("norms")
    for path, setting in zip(list(paths), STEPS, strict=True):
        rates = {kind: 100 * found.rates(kind, setting) for kind in found.best}
        scale = (100 * between["oracle"], 100.0)
        figures.by_layer_and_head(path, rates, title=f"alignment error rate (%), {setting}", columns=columns, scale=scale)
        paths.append(folder / f"{setting}_first_pair.png")
        maps_TS = {kind: found.first[kind][setting][layer][:, :-1] for kind in found.first}
        figures.sentence(paths[-1], maps_TS, *words, title=f"{setting}, layer {layer}, which has the largest mean norm")
    paths.append(folder / "mean.png")
    figures.by_layer_and_head(paths[-1], found.sizes, title="mean of the map", columns=columns)
    of_layers = {kind: {setting: found.rates(kind, setting)[:, 0].round(4).tolist() for setting in STEPS} for kind in found.best}
    said = {"pairs": report["pairs"], "error rates": between | of_layers, "layer chosen by its norms": layer}
    if other:
        backward = align(other.task, other.params, links.other_way(gold), other.place, characters=characters)
        said["both directions"] = report["both directions"] = both(found, backward)
    write_json(folder / "alignment.json", report)
    print(json.dumps(said))
    return [*paths, folder / "alignment.json"]


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    flags.DEFINE_string("links", None, "A file of right links, a line for each sentence pair: 3-4 where sure, 3p4 where possible.")
    flags.DEFINE_string("text", None, "The sentence pairs that the links are of, `source ||| target` on each line.")
    flags.DEFINE_integer("base", 1, "The number of the first word in --links.", 0, 1)
    flags.DEFINE_bool("reverse", False, "Links are written target-source.")
    flags.DEFINE_string("back", None, "A run that translates the other way: the links of both are also made one.")
    start(draw, "workdir", "links", "text", "base", "reverse", "back")
