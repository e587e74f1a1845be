"""Real tokens, as the configs make them."""

import os
import pathlib

import pytest

from attention_variants.data import Pairs, dates, multi30k
from attention_variants.data.batches import Tokens
from attention_variants.data.subwords import Subwords


@pytest.fixture(scope="session")
def dates_tokens() -> Tokens:
    return _tokens(dates.read(dates.Config(), "train"), 0)


@pytest.fixture(scope="session")
def multi30k_tokens() -> Tokens:
    folder = pathlib.Path(os.environ.get("ATTENTION_VARIANTS_DATA") or pathlib.Path(__file__).parents[3] / "shared" / "data")
    if not (folder / "multi30k" / "train.de.gz").exists():
        pytest.skip(f"{folder} holds no Multi30k; ATTENTION_VARIANTS_DATA may name a folder that does")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_VARIANTS_DATA", str(folder))
        pairs = multi30k.read(multi30k.Config("de", "en"), "train")
    assert len(pairs.source) == 29_000
    return _tokens(pairs, 4000)


def _tokens(pairs: Pairs, subwords: int) -> Tokens:
    vocabulary = Subwords.train(pairs.source + pairs.target, subwords)
    return Tokens(vocabulary.encode(pairs.source), vocabulary.encode(pairs.target))
