"""Models of translation that are asked for what their cross-attention does with given pairs: a run, or Marian from a folder."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from attention_variants.analysis import pretrained
from attention_variants.data import pretrained_text
from attention_variants.errors import InputError
from attention_variants.train import runs

SIDES = ("source", "target")
BATCH = 16  # pairs that Marian reads at once


class Translator(NamedTuple):
    """A model and how its texts become tokens.

    Attributes:
      params, config: of the model.
      words: from side, 0 the source, and texts: for each token, without END, the number of the word that it is of.
      forced: from source and target texts: batch by batch the number of each row's pair, −1 for none, and the traces by layer.
    """

    params: dict
    config: Any
    words: Callable[[int, list[str]], list[np.ndarray]]
    forced: Callable[[list[list[str]]], Iterator[tuple[np.ndarray, dict]]]


def of_run(loaded: runs.Loaded, *, characters: bool = False) -> Translator:
    """A run of translation; `characters` are its words if said so.

    Raises:
      InputError: a run of another task; when it is asked for characters, tokens that are longer.
    """
    task, params = loaded.task, loaded.params
    if not hasattr(task, "forced"):
        raise InputError(f"{loaded.workdir} is no run of translation; expected one, whose cross-attention has alignments")

    def words(side, texts):
        found = task.vocabulary.owners(texts, characters)
        if characters and any(np.diff(of).max(initial=0) > 1 for of in found):
            raise InputError(
                "the right links of dates are of characters, and this run's tokens are longer; expected task.subwords=0"
            )
        return found

    return Translator(params, task.model.config, words, lambda texts: task.forced(params, texts, loaded.place))


def of_marian(folder: str | pathlib.Path) -> Translator:
    """A model of Marian.

    Raises:
      InputError: as `pretrained.trace`; another architecture; when it is asked, words that its tokenizer does not take for words.
    """
    model, params, kind = pretrained.pretrained.load(folder)
    if model.inputs == 1:
        raise InputError(f"{folder} holds a {kind}, which translates nothing; expected a model of Marian")
    tokenizers, traces = [pretrained_text.load(folder, side) for side in SIDES], pretrained.traces(model)
    encode = lambda side, texts: pretrained.encode(tokenizers[side], texts, model, f"the {SIDES[side]} text")

    def words(side, texts):
        rows = encode(side, texts)
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), start=1):
            if len(row.words) != (found := len(text.split())):
                has = f"line {number} of the {SIDES[side]} text is {found} words by its white space"
                raise InputError(f"{has}, and the tokenizer of {folder} sees {len(row.words)}; expected a text that it reads alike")
        return [row.word_S[row.word_S >= 0] for row in rows]

    def forced(texts):
        source, target = (encode(side, of) for side, of in enumerate(texts))
        order = sorted(range(len(source)), key=lambda n: (len(source[n].ids), len(target[n].ids)))
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            given = [source[n].ids for n in rows], [[model.config.begin, *target[n].ids[:-1]] for n in rows]
            # Of few lengths, so that few programs are compiled.
            lengths = [min(-(-max(map(len, of)) // 8) * 8, model.config.longest) for of in given]
            filled = [pretrained_text.batch(of, model.config.pad, length) for of, length in zip(given, lengths, strict=True)]
            yield rows, traces(params, *filled)

    return Translator(params, model.config, words, forced)
