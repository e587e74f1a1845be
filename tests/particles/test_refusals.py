"""What repelled heads cannot be is told in one sentence, where it is asked for or at the start, never inside jit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.heads import D, K, tree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.errors import InputError
from attention_variants.particles import head_noise, repulsive_heads
from attention_variants.particles.groups import find


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sgvd"}, "'sgvd'"),
        ({"drive": "identity"}, "'identity'"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"stepsize": 0.0}, "stepsize is 0.0"),
        ({"alpha": np.float32(-1)}, "alpha is -1.0"),
        ({"temperature": float("inf")}, "temperature is inf"),
    ],
)
def test_a_mistake_is_named_at_construction(options, words):
    with pytest.raises(InputError, match=words):
        repulsive_heads(**options)


def test_noise_below_zero_is_refused():
    with pytest.raises(InputError, match=r"temperature is -1\.0"):
        head_noise(-1.0, 0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"select": "querry/kernel"}, r"'querry/kernel', which no leaf ends with; found decoder_0/cross_attention/key/kernel,"),
        ({"select": "query/bias"}, r"query/bias is selected and has shape \(4, 3\), without an axis of heads"),
        ({"select": "("}, "no regular expression"),
    ],
)
@pytest.mark.parametrize("transformation", [repulsive_heads, functools.partial(head_noise, 1.0, 1.0)])
def test_a_selection_that_cannot_be_is_named_at_the_start(transformation, options, words):
    params = tree(0)
    if options["select"] == "query/bias":
        params = {"query": {"bias": jnp.zeros((4, 3))}}
    with pytest.raises(ValueError, match=words):
        transformation(**options).init(params)


def test_a_bias_that_is_stacked_is_no_kernel():
    with pytest.raises(InputError, match=r"query/bias is selected and has shape \(2, 4, 3\), without an axis of heads"):
        find({"query": {"bias": jnp.zeros((2, 4, 3))}}, "query/bias")


def test_joint_leaves_of_other_numbers_of_heads_are_refused():
    params = {"query": {"kernel": jnp.zeros((D, 4, K))}, "key": {"kernel": jnp.zeros((D, 2, K))}}
    with pytest.raises(ValueError, match="several numbers of heads"):
        find({"layer": params}, joint=True)
    assert [group.heads for group in find({"layer": params})] == [2, 4]


def test_particles_divided_over_devices_are_refused():
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    kernel = jax.device_put(jnp.zeros((8, 4, 6)), NamedSharding(mesh, PartitionSpec("model")))
    with pytest.raises(ValueError, match=r"query/kernel \(8, 4, 6\) is divided over devices along axis 0"):
        repulsive_heads().init({"query": {"kernel": kernel}})


def test_an_axis_of_one_device_divides_nothing():
    mesh = jax.make_mesh((1,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    kernel = jax.device_put(jnp.zeros((8, 4, 6)), NamedSharding(mesh, PartitionSpec("model")))
    assert repulsive_heads().init({"query": {"kernel": kernel}}).step == 0


def test_parameters_are_needed():
    grads = tree(1)
    transformation = repulsive_heads()
    with pytest.raises(ValueError, match="needs the parameters"):
        transformation.update(grads, transformation.init(grads))
