"""Pre-trained word vectors from a text file: a word and its numbers on each line, as GloVe and word2vec write them."""

import gzip
import pathlib
import zlib
from collections.abc import Collection

import numpy as np

from attention_variants.data.subwords import Subwords
from attention_variants.data.tokens import SPECIAL
from attention_variants.errors import InputError


def of(vocabulary: Subwords, path: str | pathlib.Path, width: int) -> dict[str, np.ndarray]:
    """ "vectors" (N, width) of those "tokens" (N,) of a vocabulary of words that a file has, or has in lower case.

    They are scaled to the standard deviation that embeddings begin with, width^−½.

    Raises:
      InputError: as `read`; vectors of another width; none of the words.
    """
    words = {token: vocabulary.pieces([token])[0] for token in range(len(SPECIAL), len(vocabulary))}
    found = read(path, {form for word in words.values() for form in (word, word.lower())})
    rows = {token: found.get(word, found.get(word.lower())) for token, word in words.items()}
    rows = {token: vector for token, vector in rows.items() if vector is not None}
    if not rows:
        raise InputError(f"{path} has none of the {len(words):,} words to be learned; expected vectors of their language")
    values = np.stack(list(rows.values()))
    if values.shape[1] != width:
        raise InputError(
            f"{path} has vectors of {values.shape[1]} numbers and model.width is {width}; expected them to be the same"
        )
    return {"tokens": np.array(list(rows)), "vectors": values * np.float32(width**-0.5 / max(values.std(), 1e-9))}


def read(path: str | pathlib.Path, words: Collection[str]) -> dict[str, np.ndarray]:
    """The vectors of those of `words` that a file (plain or gzip) has, float32; a word that is there twice has its first.

    The first line may be word2vec's, with how many words and how many numbers there are.

    Raises:
      InputError: a file that cannot be read; a line with more or fewer numbers than the first, or with what is no number (which).
    """
    path = pathlib.Path(path).expanduser()
    words, found, width, first = set(words), {}, None, 1
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # Most files have words that no text has, some of them in broken UTF-8: these are nobody's.
                fields = line.decode("utf-8", "replace").rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                    width, first = int(fields[1]), 1
                    continue
                width = len(fields) - 1 if width is None else width
                # A few words of GloVe's have spaces, but no word has a number for its second half.
                if len(fields) <= width or (len(fields) > width + 1 and _is_number(fields[-width - 1])):
                    many = f"{path}, line {number}, has {len(fields) - 1} numbers"
                    raise InputError(f"{many}; expected {width}, as on line {first}")
                word = " ".join(fields[:-width])
                if word in words and word not in found:
                    try:
                        found[word] = np.array(fields[-width:], np.float32)
                    except ValueError:
                        found[word] = np.full(width, np.nan)
                    if not np.isfinite(found[word]).all():
                        raise InputError(f"{path}, line {number}, has something else than numbers after {word!r}")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return found


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
