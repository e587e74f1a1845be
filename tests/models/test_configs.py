"""Configs of the Transformer: those that cannot be built are refused, every size can be."""

import pytest

from attention_variants import models
from attention_variants.errors import InputError
from attention_variants.models import transformer
from attention_variants.models.transformer import Config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(width=22, heads=3), "model.heads is 3, which does not divide model.width 22; the nearest that does is 2"),
        (dict(width=22, heads=9), "the nearest that does is 11"),
        (dict(width=8, heads=100), "the nearest that does is 8"),
        (dict(width=15, heads=5), "model.width is 15; expected an even number, such as 16"),
        (dict(layers=0), "model.layers is 0; expected at least 1"),
        (dict(heads=-2), "model.heads is -2; expected at least 1"),
        (dict(width=0), "model.width is 0; expected at least 1"),
        (dict(feed_forward=0), "model.feed_forward is 0; expected at least 1"),
        (dict(key_size=-1), "model.key_size is -1; expected 0 for width / heads, or at least 1"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(wrong, message):
    """In a sentence that names the field, what was found and what would do."""
    with pytest.raises(InputError, match=message):
        Config(**wrong)


@pytest.mark.parametrize("name", transformer.SIZES)
def test_every_size_is_a_config(name):
    """A size can be built; the two of the paper have the numbers of its table 3."""
    config = Config(**transformer.size(name))
    assert config.width % config.heads == 0
    paper = {"base": (6, 512, 8, 2048), "big": (6, 1024, 16, 4096)}
    if name in paper:
        assert (config.layers, config.width, config.heads, config.feed_forward) == paper[name]
        assert config.norm == "post"


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown size 'smal'; did you mean 'small'"):
        transformer.size("smal")
    with pytest.raises(InputError, match="unknown model 'transfomer'; did you mean 'transformer'"):
        models.load("transfomer")
    assert models.load("transformer") is transformer
