"""Word alignments that cross-attention holds, of its weights and of the norms of what it takes from each source token.

Kobayashi et al. 2020, "Attention is not only a weight", and 2021 for what is after layer normalisation. Targets are given;
every target word is linked with the source word that it has most of, by layer and by head; links are judged by their error rate
(AER), beside what a link at random, the diagonal, and the best single links come to. With a run of the other direction beside it,
the links of both are also made one.

    python -m attention_variants.analysis.alignment --workdir=runs/demo          # dates, whose alignments are known
    python -m attention_variants.analysis.alignment --workdir=runs/en-fr         # English-French, Hansards: downloaded
    python -m attention_variants.analysis.alignment --workdir=runs/mine --links=FILE --text=FILE
    python -m attention_variants.analysis.alignment --workdir=runs/en-fr --back=runs/fr-en      # and links of both made one
    python -m attention_variants.analysis.alignment --model=FOLDER --links=FILE --text=FILE --output=DIR        # Marian

Numbers in alignment.json, pictures beside it: below the run's figures/alignment (of links of your own, named after their file), or
in --output.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from attention_variants.analysis import blocks, run_or_model, start, translators
from attention_variants.analysis.translators import Translator
from attention_variants.analysis.word_maps import STEPS, to_links, to_words
from attention_variants.data import gold_alignments, links
from attention_variants.data.links import Counts, Gold, Links
from attention_variants.errors import InputError
from attention_variants.figures import alignment as figures
from attention_variants.train import runs
from attention_variants.train.workdir import write_json


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
        return [to_links(best[layer, head], len(source)) for best, source in rows]

    def counts(self, kind: str, setting: str) -> list[list[Counts]]:
        """For each layer, of the layer as a whole and then of each head."""
        layers, heads, _ = self.best[kind][setting][0].shape
        judged = lambda *at: links.count(self.links(kind, setting, *at), self.gold)
        return [[judged(layer, head) for head in range(heads)] for layer in range(layers)]

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


def align(asked: Translator, gold: Gold, between: str = " ") -> Found:
    """What the cross-attention of a model makes of sentence pairs whose right links are known.

    Args:
      between: what stands between the words of a text, "" where they are characters.
    """
    texts = [[between.join(words) for words in side] for side in (gold.source, gold.target)]
    owners = [asked.words(side, of) for side, of in enumerate(texts)]
    best, first, sizes = {}, {}, {}
    for rows, layers in asked.forced(texts):
        cross = {name: trace for name, trace in layers.items() if not blocks.own_sources(name)}
        found = blocks.blocks(asked.params, cross, asked.config)
        of_layers = [maps(block, asked.config.epsilon) for block in found.values()]
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


def error_rates(counts: list[list[Counts]]) -> np.ndarray:
    """(L, 1 + H)."""
    return np.array([[of.error_rate for of in layer] for layer in counts])


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
    if base != 1 or reverse:
        raise InputError("--base and --reverse belong to --links; expected neither for data whose links are known")
    source, data = loaded.task.source, loaded.task.data
    if hasattr(source, "gold"):
        return source.gold(source.read(data, "test")), True
    if (getattr(data, "source", ""), getattr(data, "target", "")) == ("en", "fr"):
        return gold_alignments.english_french(), False
    raise InputError(
        "nobody knows the right links of this run's data; expected --links=FILE and --text=FILE, or a run of dates or en-fr"
    )


def _back(loaded: runs.Loaded, back, tell) -> Translator:
    """The run that translates the other way."""
    other = runs.Loaded(back, tell)
    asked = translators.of_run(other)
    there, here = ((getattr(of.task.data, "source", None), getattr(of.task.data, "target", None)) for of in (other, loaded))
    if other.workdir == loaded.workdir:
        raise InputError(f"--back={back} is --workdir itself; expected a run that translates the other way")
    if all(there + here) and there != here[::-1]:
        raise InputError(f"--back={back} translates {' to '.join(there)}; expected {' to '.join(here[::-1])}, the other way")
    return asked


def draw(workdir, links_file=None, text=None, base=1, reverse=False, back=None, tell=print) -> list[pathlib.Path]:
    """Error rates by layer and head, maps of the first pair, and all numbers, below a run's figures."""
    loaded = runs.Loaded(workdir, tell)
    translators.of_run(loaded)  # a run of another task has no data of which links are known, either
    gold, characters = known(loaded, links_file, text, base, reverse)
    folder = loaded.workdir / "figures" / (f"alignment_{pathlib.Path(links_file).stem}" if links_file else "alignment")
    if back and characters:
        raise InputError(f"--back={back} is given, and nobody translates these data back; expected --workdir alone")
    backward = _back(loaded, back, tell) if back else None
    found = align(translators.of_run(loaded, characters=characters), gold, "" if characters else " ")
    return report(found, align(backward, links.other_way(gold)) if backward else None, folder)


def report(found: Found, backward: Found | None, folder: pathlib.Path) -> list[pathlib.Path]:
    """Pictures and alignment.json in a folder, and the most important numbers printed."""
    gold, layer = found.gold, found.chosen("norms")
    between = {name: counts.error_rate for name, counts in links.bounds(gold).items()}
    counts = {kind: {setting: found.counts(kind, setting) for setting in STEPS} for kind in found.best}
    rates = {kind: {setting: error_rates(of) for setting, of in settings.items()} for kind, settings in counts.items()}
    of_both = lambda layers: [[(of.precision, of.recall) for of in layer] for layer in layers]
    whole = {"pairs": len(gold.sure), **between}
    whole |= {kind: {setting: of.tolist() for setting, of in settings.items()} for kind, settings in rates.items()}
    whole["precision and recall"] = {
        kind: {setting: of_both(of) for setting, of in settings.items()} for kind, settings in counts.items()
    }
    whole["mean"] = {kind: size.tolist() for kind, size in found.sizes.items()}
    whole["chosen"] = {kind: found.chosen(kind) for kind in found.sizes}
    paths, columns = [], ["all", *map(str, range(found.sizes["norms"].shape[1] - 1))]
    for setting in STEPS:
        paths += [folder / f"{setting}.png", folder / f"{setting}_first_pair.png"]
        percent = {kind: 100 * settings[setting] for kind, settings in rates.items()}
        scale = (100 * between["oracle"], 100.0)
        title = f"alignment error rate (%), {setting}"
        figures.by_layer_and_head(paths[-2], percent, title=title, columns=columns, scale=scale)
        maps_TS = {kind: found.first[kind][setting][layer][:, :-1] for kind in found.first}
        title = f"{setting}, layer {layer}, which has the largest mean norm"
        figures.sentence(paths[-1], maps_TS, *(of[0] for of in gold), title=title)
    paths.append(folder / "mean.png")
    figures.by_layer_and_head(paths[-1], found.sizes, title="mean of the map", columns=columns)
    of_layers = {
        kind: {setting: of[:, 0].round(4).tolist() for setting, of in settings.items()} for kind, settings in rates.items()
    }
    said = {"pairs": whole["pairs"], "error rates": between | of_layers, "layer chosen by its norms": layer}
    if backward:
        said["both directions"] = whole["both directions"] = both(found, backward)
    write_json(folder / "alignment.json", whole)
    print(json.dumps(said))
    return [*paths, folder / "alignment.json"]


def main(workdir, model, links_file, text, output, base, reverse, back) -> list[pathlib.Path]:
    """What the flags say: of a run, or of Marian, into a folder."""
    expected = "--model=FOLDER --links=FILE --text=FILE --output=DIR"
    run_or_model(workdir, model, expected, links=links_file, text=text, output=output)
    if workdir and output:
        raise InputError(f"--output={output} belongs to --model; expected --workdir alone, whose pictures lie in its own folder")
    if model and back:
        raise InputError(f"--back={back} belongs to --workdir; expected --model without it")
    if workdir:
        return draw(workdir, links_file, text, base, reverse, back)
    gold = gold_alignments.read(links_file, text, base=base, reverse=reverse)
    return report(align(translators.of_marian(model), gold), None, pathlib.Path(output))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    flags.DEFINE_string("model", None, "A pre-trained model of Marian: a folder as Hugging Face's save_pretrained writes it.")
    flags.DEFINE_string("output", None, "With --model: the folder for pictures and alignment.json.")
    flags.DEFINE_string("links", None, "A file of right links, a line for each sentence pair: 3-4 where sure, 3p4 where possible.")
    flags.DEFINE_string("text", None, "The sentence pairs that the links are of, `source ||| target` on each line.")
    flags.DEFINE_integer("base", 1, "The number of the first word in --links.", 0, 1)
    flags.DEFINE_bool("reverse", False, "Links are written target-source.")
    flags.DEFINE_string("back", None, "A run that translates the other way: the links of both are also made one.")
    start(main, "workdir", "model", "links", "text", "output", "base", "reverse", "back")
