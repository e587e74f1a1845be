"""Traces of pre-trained models on lines of text, as those of our own runs: what an analysis of attention layers takes."""

import itertools
import pathlib
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.data import pretrained_text, text_files
from attention_variants.errors import InputError
from attention_variants.models import decoding, layers, pretrained

MOST = 64  # lines that are read: as many examples as of a run


class Traced(NamedTuple):
    """A model of a folder on lines of text.

    Attributes:
      layers: by attention layer, its trace, which queries are tokens, and the names of each line's keys, as `Task.attention`.
      params, config: of the model. kind: which architecture it is.
      counts: by side, "encoder" and "decoder", how often each token stands in all lines of the text, and in the translations that
        were read.
    """

    layers: dict[str, tuple[dict, np.ndarray, list[list[str]]]]
    params: dict
    config: Any
    kind: str
    counts: dict[str, Counter[str]]


def trace(folder: str | pathlib.Path, text: str | pathlib.Path, target: str | pathlib.Path | None = None) -> Traced:
    """A model on the first lines of a file.

    Args:
      target: of a translation model, a file of the lines' translations; by default it translates them.

    Raises:
      InputError: as `models.pretrained.load` and `data.pretrained_text`; translations for a model that makes none, or as many
        lines as there are not.
    """
    model, params, kind = pretrained.load(folder)
    config = model.config
    lines, tokenizer = _lines(text), pretrained_text.load(folder)
    source = encode(tokenizer, lines[:MOST], model, text)
    source_BS = pretrained_text.batch([row.ids for row in source], config.pad)
    real, keys = {"encoder": source_BS != config.pad}, {"encoder": [row.pieces for row in source]}
    if model.inputs == 1:
        if target:
            raise InputError(f"{folder} holds a {kind}, which translates nothing; expected --text alone")
        given = (source_BS,)
    else:
        before_BT, before = _before(folder, model, params, source_BS, target, len(lines))
        given = (source_BS, before_BT)
        real["decoder"], keys["decoder"] = np.arange(before_BT.shape[1]) < [[len(row)] for row in before], before
    found = {}
    for name, of in traces(model)(params, *given).items():
        side = name.split("_")[0]
        found[name] = of, real[side], keys["encoder" if "cross" in name else side]
    counts = {side: Counter(itertools.chain(*rows)) for side, rows in keys.items()}
    counts["encoder"].update(piece for line in lines[MOST:] for piece in tokenizer.line(line).pieces)
    return Traced(found, params, config, kind, counts)


def traces(model):
    """The compiled function from parameters and tokens to the traces of attention layers."""
    traced = lambda params, *given: model.apply({"params": params}, *given, mutable=["trace"])[1]["trace"]
    return jax.jit(lambda params, *given: layers.traces(traced(params, *given)))


def encode(tokenizer, lines: list[str], model, name) -> list[pretrained_text.Tokens]:
    """The tokens of lines; InputError for an id that the model does not have."""
    rows = pretrained_text.encode(tokenizer, lines, model.config.longest, str(name))
    for number, row in enumerate(rows, start=1):
        if row.ids.max() >= model.vocabulary:
            piece = row.pieces[int(row.ids.argmax())]
            has = f"{name}, line {number}, has {piece!r}, of which the tokenizer says {row.ids.max()}"
            raise InputError(f"{has}, and the model has {model.vocabulary} tokens; expected the tokenizer it was trained with")
    return rows


def _before(folder, model, params, source_BS, target, lines: int) -> tuple[np.ndarray, list[list[str]]]:
    """What a decoder is fed with, `begin` first, and its tokens' names: of given translations, or of the model's own."""
    config, tokenizer = model.config, pretrained_text.load(folder, "target")
    if target:
        given = _lines(target)
        if len(given) != lines:
            raise InputError(f"{target} has {len(given)} lines and the text {lines}; expected a translation of every line")
        rows = encode(tokenizer, given[:MOST], model, target)
        ids, pieces = [row.ids for row in rows], [row.pieces for row in rows]
    else:
        length = min(config.longest, 2 * source_BS.shape[1] + 10)
        out_BT = np.asarray(decoding.greedy(model, params, jnp.asarray(source_BS), length=length))
        ids = [row[: 1 + (row == config.end).argmax()] if (row == config.end).any() else row for row in out_BT]
        pieces = [tokenizer.pieces(row) for row in ids]
    before = [["<s>", *row[:-1]] for row in pieces]
    return pretrained_text.batch([[config.begin, *row[:-1]] for row in ids], config.pad), before


def _lines(path) -> list[str]:
    return text_files.refuse_empty(text_files.read_lines(path), str(path))
