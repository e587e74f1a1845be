"""What a translation task refuses, before anything is written."""

import dataclasses
import re

import jax
import pytest

from attention_variants.errors import InputError
from attention_variants.tasks import translation


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (translation.Config, {"batch_tokens": 0}, "task.batch_tokens is 0"),
        (translation.Config, {"decode_tokens": 0}, "task.decode_tokens is 0"),
        (translation.Config, {"subwords": -1}, "task.subwords is -1"),
        (translation.Config, {"max_length": 1}, "task.max_length is 1"),
        (translation.Config, {"beams": 0}, "task.beams is 0"),
        (translation.Config, {"max_padding": 0.0}, "task.max_padding is 0"),
        (translation.Config, {"temperature": -0.1}, "task.temperature is -0.1"),
        (translation.Config, {"temperature": float("inf")}, "task.temperature is inf"),
        (translation.Config, {"top_p": 0.0}, "task.top_p is 0"),
        (translation.Config, {"beams": 2, "temperature": 0.7}, "task.beams is 2 with a task.temperature"),
        (translation.Hypers, {"dropout": 1.0}, "hypers.dropout is 1"),
        (translation.Hypers, {"attention_dropout": -0.1}, "hypers.attention_dropout is -0.1"),
        (translation.Hypers, {"label_smoothing": float("nan")}, "hypers.label_smoothing is nan"),
        (translation.Hypers, {"learning_rate": -1.0}, "hypers.learning_rate is -1"),
    ],
)
def test_settings_out_of_range_are_refused(cls, values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        cls(**values)


def test_a_limit_that_leaves_nothing_is_refused(settings):
    with pytest.raises(InputError, match=r"every training pair is longer than task\.max_length.* 3"):
        translation.Task.new(dataclasses.replace(settings, task=dataclasses.replace(settings.task, max_length=3)))


@pytest.mark.parametrize("packed", [True, False])
def test_a_route_that_packed_rows_or_decoding_cannot_take_is_refused(settings, monkeypatch, packed):
    """The kernel of TPUs has no positions: packed rows have, and so has decoding, whatever training is like."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    if packed:
        monkeypatch.setattr(translation, "greedy", lambda *args, **kwargs: None)
    model, task = dataclasses.replace(settings.model, route="fused"), dataclasses.replace(settings.task, packed=packed)
    hypers = dataclasses.replace(settings.hypers, attention_dropout=0.0)
    with pytest.raises(InputError, match=r"route='fused' cannot take this: the kernel knows causal=True .* without positions"):
        translation.Task.new(dataclasses.replace(settings, model=model, task=task, hypers=hypers))
