"""Text for pre-trained models, by the tokenizer of their folder: `tokenizer.json`, or SentencePiece with `vocab.json` (Marian)."""

import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tokenizers

from attention_variants.errors import InputError

SPACE = "▁"  # what SentencePiece begins words with
LANGUAGE = re.compile(r">>[^<>\s]+<<")  # what a line begins with where a model of Marian has several target languages


class Tokens(NamedTuple):
    """The tokens of a line.

    Attributes:
      ids: (S,) int32. pieces: their strings in the vocabulary. word_S: (S,) int32, which of `words` each is of; −1 for what the
        tokenizer adds. words: those of the line, as the tokenizer takes it apart.
    """

    ids: np.ndarray
    pieces: list[str]
    word_S: np.ndarray
    words: list[str]


class Tokenizer:
    """A `tokenizer.json`; special tokens that are written in a text, "[MASK]" say, are special."""

    def __init__(self, path: pathlib.Path):
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise InputError(f"cannot read the tokenizer {path}: {error}") from None
        self._tokenizer.no_truncation()  # what a file may say; a line that is too long is told
        self._tokenizer.no_padding()

    def line(self, text: str) -> Tokens:
        """The tokens of one line."""
        found = self._tokenizer.encode(text)
        word_S = np.array([-1 if word is None else word for word in found.word_ids], np.int32)
        spans = [found.word_to_chars(word) for word in range(word_S.max(initial=-1) + 1)]
        words = [text[slice(*span)] if span else "" for span in spans]  # of a word that is all unknown there may be nothing
        return Tokens(np.array(found.ids, np.int32), found.tokens, word_S, words)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The strings of ids, "<7>" of one that has none."""
        return [self._tokenizer.id_to_token(int(i)) or f"<{i}>" for i in ids]


class SentencePiece:
    """A SentencePiece model whose pieces have the ids of a `vocab.json`."""

    def __init__(self, model: pathlib.Path, vocabulary: pathlib.Path):
        import sentencepiece  # here because only models of Marian take it

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise InputError(f"cannot read the tokenizer {model}: {error}") from None
        self._ids = _vocabulary(vocabulary)
        self._pieces = {i: piece for piece, i in self._ids.items()}

    def line(self, text: str) -> Tokens:
        """The tokens of one line, "</s>" last."""
        code = LANGUAGE.findall(text)[:1] if LANGUAGE.match(text) else []
        pieces = code + self._model.encode(text.removeprefix("".join(code)), out_type=str)
        begins = [n == 0 or piece.startswith(SPACE) for n, piece in enumerate(pieces)]
        word_S = np.array([*(np.cumsum(begins, dtype=int) - 1), -1], np.int32)
        words = [""] * (word_S.max() + 1)
        for piece, word in zip(pieces, word_S, strict=False):
            words[word] += piece.lstrip(SPACE)
        ids = [self._ids.get(piece, self._ids["<unk>"]) for piece in pieces]
        return Tokens(np.array([*ids, self._ids["</s>"]], np.int32), [*pieces, "</s>"], word_S, words)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The strings of ids, "<7>" of one that has none."""
        return [self._pieces.get(int(i), f"<{i}>") for i in ids]


def load(folder: str | pathlib.Path, side: Literal["source", "target"] = "source") -> Tokenizer | SentencePiece:
    """The tokenizer of a folder; SentencePiece has one for each side of a translation.

    Raises:
      InputError: there is none, or one that cannot be read.
    """
    folder = pathlib.Path(folder).expanduser()
    if (folder / f"{side}.spm").exists():
        return SentencePiece(folder / f"{side}.spm", folder / "vocab.json")
    if (folder / "tokenizer.json").exists():
        return Tokenizer(folder / "tokenizer.json")
    line = f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    hint = f'; python -c "from transformers import AutoTokenizer; {line}" makes it of vocab.txt or merges.txt'
    slow = any((folder / name).exists() for name in ("vocab.txt", "merges.txt"))
    raise InputError(
        f"no tokenizer in {folder}; expected tokenizer.json, or source.spm, target.spm and vocab.json{hint if slow else ''}"
    )


def encode(tokenizer: Tokenizer | SentencePiece, lines: list[str], longest: int, name: str = "the text") -> list[Tokens]:
    """The tokens of each line.

    Args:
      longest: how many tokens the model has positions for. name: what messages call the lines.

    Raises:
      InputError: a line with more tokens.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        rows.append(tokenizer.line(line))
        found = len(rows[-1].ids)
        if found > longest:
            raise InputError(f"{name}, line {number}, has {found} tokens; expected at most {longest}, the positions of the model")
    return rows


def batch(rows: Sequence[Sequence[int]], pad: int, length: int = 0) -> np.ndarray:
    """Rows of ids, (B, S) int32, filled up with `pad` to the longest of them, or to a length."""
    out_BS = np.full((len(rows), max(length, *map(len, rows))), pad, np.int32)
    for out_S, row in zip(out_BS, rows, strict=True):
        out_S[: len(row)] = row
    return out_BS


def _vocabulary(path: pathlib.Path) -> dict[str, int]:
    try:
        ids = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the vocabulary {path}: {error}") from None
    for piece in ("</s>", "<unk>"):
        if not isinstance(ids, dict) or piece not in ids:
            raise InputError(f"the vocabulary {path} has no {piece!r}; expected an id for every piece")
    return ids
