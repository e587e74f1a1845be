"""Traces of pre-trained models on lines of text, as those of our own runs: what an analysis of attention layers takes."""

import pathlib
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
    """

    layers: dict[str, tuple[dict, np.ndarray, list[list[str]]]]
    params: dict
    config: Any
    kind: str


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
    source = pretrained_text.encode(pretrained_text.load(folder), _lines(text), config.longest, str(text))
    source_BS = pretrained_text.batch(source, config.pad)
    if model.inputs == 1:
        if target:
            raise InputError(f"{folder} holds a {kind}, which translates nothing; expected --text alone")
        given, pieces = (source_BS,), [row.pieces for row in source]
        real, keys = {"encoder": source_BS != config.pad}, {"encoder": pieces}
    else:
        before_BT, before = _before(folder, model, params, source_BS, target, len(source))
        given, pieces = (source_BS, before_BT), [row.pieces for row in source]
        real = {"encoder": source_BS != config.pad, "decoder": np.arange(before_BT.shape[1]) < [[len(row)] for row in before]}
        keys = {"encoder": pieces, "decoder": before}
    traced = jax.jit(lambda params, *given: model.apply({"params": params}, *given, mutable=["trace"])[1]["trace"])(params, *given)
    found = {}
    for name, of in layers.traces(traced).items():
        side = name.split("_")[0]
        found[name] = of, real[side], keys["encoder" if "cross" in name else side]
    return Traced(found, params, config, kind)


def _before(folder, model, params, source_BS, target, lines: int) -> tuple[np.ndarray, list[list[str]]]:
    """What a decoder is fed with, `begin` first, and its tokens' names: of given translations, or of the model's own."""
    config, tokenizer = model.config, pretrained_text.load(folder, "target")
    if target:
        rows = pretrained_text.encode(tokenizer, _lines(target), config.longest, str(target))
        if len(rows) != lines:
            raise InputError(f"{target} has {len(rows)} lines and the text {lines}; expected a translation of every line")
    else:
        length = min(config.longest, 2 * source_BS.shape[1] + 10)
        out_BT = np.asarray(decoding.greedy(model, params, jnp.asarray(source_BS), length=length))
        rows = [tokenizer.line(tokenizer.text(row)) for row in out_BT]
    shifted = [row._replace(ids=np.append(config.begin, row.ids[:-1])) for row in rows]
    return pretrained_text.batch(shifted, config.pad), [["<s>", *row.pieces[:-1]] for row in rows]


def _lines(path) -> list[str]:
    return text_files.refuse_empty(text_files.read_lines(path), str(path))[:MOST]
