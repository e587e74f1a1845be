"""Subwords by byte-pair encoding (Sennrich et al. 2016), one vocabulary for both languages; or words.

Trained on the training split. Of subwords, text comes back as it went in, but for runs of white space and characters that training
never saw.
"""

import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from attention_variants.data.batches import Ragged
from attention_variants.data.tokens import END, SPECIAL
from attention_variants.errors import InputError

CHUNK = 10_000  # sentences encoded at a time: what the tokenizer returns is many times larger than the ids


class Subwords:
    """A trained tokenizer."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "</s>" written in a text is text

    @classmethod
    def train(cls, sentences: Iterable[str], size: int) -> "Subwords":
        """A vocabulary of `size` subwords from `sentences`; 0 is one token per character."""
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=SPECIAL[3]))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        tokenizer.decoder = decoders.Metaspace()
        # A size below the alphabet's leaves the alphabet alone: characters.
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer)

    @classmethod
    def of_words(cls, sentences: Iterable[str], least: int = 1) -> "Subwords":
        """A vocabulary of the words that white space separates and that `sentences` have at least so often; they are not split."""
        tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[3]))
        special = Regex(rf"(?<!\S)({'|'.join(map(re.escape, SPECIAL))})(?!\S)")  # written in a text it is text
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(special, "\ufffd")])
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        limits = dict(vocab_size=2**31, min_frequency=least)
        trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL), show_progress=False, **limits)
        tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Subwords":
        """The vocabulary saved at `path`. Raises InputError where there is none."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise InputError(f"cannot read the vocabulary {path}: {error}") from None

    def save(self, path: pathlib.Path) -> None:
        """Writes the vocabulary to `path`, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self._tokenizer.to_str())
        os.replace(partial, path)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, sentences: list[str]) -> Ragged:
        """The token ids of each sentence, END last."""
        chunks = (sentences[i : i + CHUNK] for i in range(0, len(sentences), CHUNK))
        return Ragged.of([*e.ids, END] for chunk in chunks for e in self._tokenizer.encode_batch(chunk))

    def owners(self, sentences: list[str], characters: bool = False) -> list[np.ndarray]:
        """For each token of each sentence, without END, the number of the word that it is of, or else of the character.

        Words are what white space separates; the white space before a word is its own.
        """
        found = []
        for encoding, sentence in zip(self._tokenizer.encode_batch(sentences), sentences, strict=True):
            ends = [match.end() for match in re.finditer("(?s)." if characters else r"\S+", sentence)]
            found.append(np.searchsorted(ends, [start for start, _ in encoding.offsets], side="right"))
        return found

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids; what follows END, and special tokens, are left out."""
        kept = []
        for row in rows:
            ids = [int(i) for i in row]
            kept.append(ids[: ids.index(END)] if END in ids else ids)
        return self._tokenizer.decode_batch(kept, skip_special_tokens=True)

    def pieces(self, row: Iterable[int]) -> list[str]:
        """The row's tokens as a person reads them on an axis, up to END."""
        ids = [int(i) for i in row]
        ids = ids[: ids.index(END) + 1] if END in ids else ids
        return [self._tokenizer.id_to_token(i) for i in ids]
