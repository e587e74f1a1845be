"""A variant is one file with a Config and a Layer; a name finds it."""

import dataclasses
import importlib
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.attention import attention, gaussian, growth

from attention_variants import variants
from attention_variants.errors import InputError
from attention_variants.ops.attend import attend
from attention_variants.ops.scores import Score


def test_every_file_with_a_config_and_a_layer_is_a_variant():
    files = sorted(path.stem for path in pathlib.Path(variants.__file__).parent.glob("*.py"))
    modules = {name: importlib.import_module(f"{variants.__name__}.{name}") for name in files if name != "__init__"}
    assert variants.names() == [name for name, module in modules.items() if {"Config", "Layer"} <= vars(module).keys()]
    assert set(modules) - set(variants.names()) == {"spectral_sampler", "weighted"}  # what variants share


@pytest.mark.parametrize("name", variants.names())
def test_a_variant_has_a_frozen_config_and_a_layer(name):
    """The config has defaults, cannot be changed and can be hashed, as a static argument must; a docstring tells the formula."""
    module = variants.load(name)
    config = module.Config()
    assert module.Config.__module__ == module.Layer.__module__ == module.__name__
    assert module.Config.__dataclass_params__.frozen
    assert config == module.Config()
    assert hash(config) == hash(module.Config())
    assert issubclass(module.Layer, nn.Module)
    assert next(iter(dataclasses.fields(module.Layer))).name == "config"
    assert module.__doc__
    assert "weight" in module.__doc__


@pytest.mark.parametrize("name", variants.names())
def test_a_name_and_its_config_make_the_same_layer(name):
    """A Score is a pytree; a layer can be built from the name, and from a Config of the file."""
    module = variants.load(name)
    sizes = dict(heads=5, size=7)
    assert variants.layer(name, **sizes) == variants.layer(module.Config(), **sizes)
    assert variants.layer(name, name="variant", **sizes).name == "variant"
    x = jnp.ones((2, 3, 5, 7))
    score = variants.layer(name, **sizes).init_with_output(jax.random.key(0), x, x, None)[0]
    assert isinstance(score, Score)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(score))


@pytest.mark.parametrize("name", ["standart", "standard.py", "errors", "__init__", "../standard", "", "Standard"])
def test_an_unknown_name_is_refused_with_the_choices(name):
    with pytest.raises(InputError, match="unknown variant") as caught:
        variants.load(name)
    assert repr(name) in str(caught.value)
    for known in variants.names():
        assert known in str(caught.value)


def test_the_nearest_name_is_named():
    with pytest.raises(InputError, match="did you mean 'standard'"):
        variants.load("standart")


def test_standard_is_a_gaussian_similarity_times_a_magnitude():
    """softmax(q·k / √d) = exp(−‖q−k‖² / 2√d) · exp(‖k‖² / 2√d), normalised (design, section 1)."""
    q, k, v = (np.random.default_rng(n).normal(size=shape) for n, shape in enumerate([(2, 5, 3, 11), (2, 7, 3, 11), (2, 7, 3, 13)]))
    score = variants.layer("standard", heads=3, size=11).apply({}, None, None, None)
    expected, _ = attention(q, k, v, gaussian, growth)
    np.testing.assert_allclose(attend(*map(jnp.float32, (q, k, v)), score=score), expected, rtol=1e-5, atol=1e-5)


def test_unscaled_is_the_plain_product():
    """softmax(q·k) = exp(−‖q−k‖² / 2) · exp(‖k‖² / 2), normalised; and other weights than the scaled product's."""
    q, k, v = (np.random.default_rng(n).normal(size=shape) for n, shape in enumerate([(2, 5, 3, 11), (2, 7, 3, 11), (2, 7, 3, 13)]))
    expected, _ = attention(q, k, v, lambda q, k: np.exp(-((q - k) ** 2).sum() / 2), lambda k: np.exp((k**2).sum() / 2))
    found = [
        attend(*map(jnp.float32, (q, k, v)), score=variants.layer(n, heads=3, size=11).apply({}, None, None, None))
        for n in ("unscaled", "standard")
    ]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)
    assert abs(found[1] - expected).max() > 0.1
