"""Repelled heads as transformations of gradients: what they select, leave alone and refuse, formula, noise, devices, BlackJAX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases.heads import H, particles, tree, updated
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from references import particles as slow

from attention_variants.particles import head_noise, heads, repulsive_heads
from attention_variants.particles.groups import by_path, find


def test_every_projection_is_a_group_of_its_own_and_the_rest_stays():
    params, grads = tree(0), tree(1)
    found = by_path(updated(repulsive_heads(alpha=0.7, stepsize=0.3), grads, params)[0])
    for path, g in by_path(grads).items():
        if path.endswith(("query/kernel", "key/kernel", "value/kernel")):
            expected = slow.svgd(particles(by_path(params)[path]), particles(g), 0.7, 0.3)
            np.testing.assert_allclose(particles(found[path]), expected, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[path], g)


def test_output_projections_have_their_heads_first():
    params, grads = tree(0), tree(1)
    found = updated(repulsive_heads(alpha=0.7, select="cross_attention/out/kernel"), grads, params)[0]
    of = lambda any_tree: particles(any_tree["decoder_0"]["cross_attention"]["out"]["kernel"], axis=-3)
    np.testing.assert_allclose(of(found), slow.svgd(of(params), of(grads), 0.7), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        found["encoder_0"]["self_attention"]["out"]["kernel"], grads["encoder_0"]["self_attention"]["out"]["kernel"]
    )


def test_joint_particles_are_whole_heads():
    params, grads = tree(0), tree(1)
    found = updated(repulsive_heads(alpha=0.7, joint=True), grads, params)[0]
    for block, name in (("encoder_0", "self_attention"), ("decoder_0", "cross_attention")):
        whole = lambda any_tree, of=(block, name): np.concatenate(
            [particles(any_tree[of[0]][of[1]][p]["kernel"]) for p in ("query", "key", "value")], 1
        )
        np.testing.assert_allclose(whole(found), slow.svgd(whole(params), whole(grads), 0.7), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"drive": "gradient"}, {"select": "(value|out)/kernel"}])
def test_groups_do_not_see_each_other(options):
    """Of two and of three heads, whose small matrices are made together with those of their own size."""
    params, grads = ({"two": tree(seed, 2), "three": tree(seed, 3)} for seed in (0, 1))
    together = updated(repulsive_heads(alpha=0.7, **options), grads, params)[0]
    for name in params:
        alone = updated(repulsive_heads(alpha=0.7, **options), grads[name], params[name])[0]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), alone, together[name])


def test_stacked_layers_are_layers():
    """What nn.scan has stacked is as many groups."""
    params, grads = tree(0, stacked=(3,)), tree(1, stacked=(3,))
    together = updated(repulsive_heads(alpha=0.7), grads, params)[0]
    for layer in range(3):
        of = lambda any_tree, n=layer: jax.tree.map(lambda x: x[n], any_tree)
        alone = updated(repulsive_heads(alpha=0.7), of(grads), of(params))[0]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), alone, of(together))


@pytest.mark.parametrize("make", [repulsive_heads, lambda: repulsive_heads("spos"), lambda: head_noise(1.0, 1.0)])
def test_one_head_is_left_alone(make):
    params, grads = tree(0, heads=1), tree(1, heads=1)
    found, state = updated(make(), grads, params)
    jax.tree.map(np.testing.assert_array_equal, found, grads)
    assert state.step == 1


@pytest.mark.parametrize("method", ["svgd", "spos"])
@pytest.mark.parametrize("case", ["two", "equal", "bfloat16", "zero"])
def test_nothing_is_not_finite(method, case):
    dtype = jnp.bfloat16 if case == "bfloat16" else jnp.float32
    params, grads = tree(0, heads=2 if case == "two" else H, dtype=dtype), tree(1, heads=2 if case == "two" else H, dtype=dtype)
    if case == "equal":
        params = jax.tree.map(jnp.ones_like, params)
    if case == "zero":
        params, grads = (jax.tree.map(jnp.zeros_like, of) for of in (params, grads))
    found, state = updated(repulsive_heads(method), grads, params)
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves((found, state.numbers)))
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(grads), strict=True))


def test_scaled_back_without_kernel_or_repulsion_is_the_gradient():
    params, grads = tree(0), tree(1)
    found = updated(repulsive_heads(alpha=0.0, drive="gradient", rescale=True), grads, params)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, grads)


@pytest.mark.parametrize("alpha", [jnp.float32(0.7), lambda step: 0.1 + 0.6 * step])
def test_strength_may_be_traced_or_a_schedule(alpha):
    params, grads = tree(0), tree(1)
    transformation = repulsive_heads(alpha=alpha)
    state = transformation.init(params)._replace(step=jnp.int32(1))
    found = jax.jit(transformation.update)(grads, state, params)[0]
    expected = updated(repulsive_heads(alpha=0.7), grads, params)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.parametrize("rescale", [False, True])
def test_drift_and_noise_are_those_of_the_formula(rescale):
    """At the noise that was drawn, which is what differs from temperature 0, at gradients of several sizes."""
    params, grads = tree(0), jax.tree.map(lambda x: x**3, tree(1))
    settings = dict(alpha=0.7, stepsize=0.3, rescale=rescale)
    transformation = repulsive_heads("spos", temperature=0.6, **settings)
    state = transformation.init(params)
    found = by_path(transformation.update(grads, state, params)[0])
    groups = find(params)
    for group, (xi,) in zip(groups, heads._normal(state, groups, jnp.float32), strict=True):
        g, xi = particles(by_path(grads)[group.name]), particles(xi[0])
        c = np.sort(abs(g).ravel())[(g.size - 1) // 2]
        expected = slow.spos(particles(by_path(params)[group.name]), g, xi, 0.7, 0.3, 0.6, c)
        if rescale:
            expected += (H - 1) * slow.svgd(particles(by_path(params)[group.name]), g, 0.7, 0.3)
        np.testing.assert_allclose(particles(found[group.name]), expected, rtol=1e-2, atol=1e-2 * abs(expected).max())


@pytest.mark.parametrize("options", [{}, {"joint": True}])
def test_noise_is_of_the_size_of_the_gradients_of_its_own_group_and_layer(options):
    """c is the median over all leaves of a group, which a layer that nn.scan has stacked has for itself."""
    params, grads = tree(0, stacked=(2,)), tree(1, stacked=(2,))
    grads["encoder_0"]["self_attention"]["value"]["kernel"] *= 1e3
    grads = jax.tree.map(lambda g: g.at[1].multiply(100.0), grads)
    settings = dict(alpha=0.7, temperature=1.0, stepsize=0.3, **options)
    transformation = repulsive_heads("spos", **settings)
    state = transformation.init(params)
    found = by_path(transformation.update(grads, state, params)[0])
    quiet = by_path(updated(repulsive_heads("spos", noise=False, **settings), grads, params)[0])
    groups = find(params, joint=bool(options))
    for group, draws in zip(groups, heads._normal(state, groups, jnp.float32), strict=True):
        for layer in range(2):
            own = np.concatenate([abs(np.asarray(by_path(grads)[leaf.path][layer])).ravel() for leaf in group.leaves])
            c = np.sort(own)[(own.size - 1) // 2]
            for leaf, xi in zip(group.leaves, draws, strict=True):
                noise = np.asarray(quiet[leaf.path] - found[leaf.path])[layer].ravel()
                expected = 0.3 * np.sqrt(2 / 0.3) * c * np.asarray(xi)[layer].ravel()
                np.testing.assert_allclose(noise, expected, rtol=1e-2, atol=1e-2 * c)


def test_noise_has_the_variance_that_was_asked_for():
    """2τ/s · c² · s², with c the median of |g|, which here is one; other at every step, the same for the same seed."""
    shape, stepsize, heat = (64, 8, 128), 0.3, 0.6
    kernel = lambda x: {"query": {"kernel": x}}
    params, grads = kernel(jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)), kernel(jnp.ones(shape))
    settings = dict(alpha=0.0, stepsize=stepsize, temperature=heat)
    plain = updated(repulsive_heads("svgd", alpha=0.0, stepsize=stepsize), grads, params)[0]["query"]["kernel"]
    transformation = repulsive_heads("spos", **settings)
    first, state = updated(transformation, grads, params)
    second, _ = transformation.update(grads, state, params)
    draws = [np.asarray(of["query"]["kernel"] - plain - stepsize * heat) for of in (first, second)]
    for noise in draws:
        assert np.var(noise) == pytest.approx(2 * heat * stepsize, rel=0.03)
        assert abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(*(noise.ravel() for noise in draws))[0, 1]) < 0.02
    again = updated(repulsive_heads("spos", **settings), grads, params)[0]
    other = updated(repulsive_heads("spos", **settings, key=jax.random.key(1)), grads, params)[0]
    np.testing.assert_array_equal(again["query"]["kernel"], first["query"]["kernel"])
    assert (np.asarray(other["query"]["kernel"]) != np.asarray(first["query"]["kernel"])).any()


def test_exact_noise_comes_after_the_optimiser():
    """√(2 τ ε), whatever Adam makes of gradients; nothing else is touched."""
    shape, rate, heat = (64, 8, 128), 1e-2, 0.6
    params = {"query": {"kernel": jnp.zeros(shape)}, "bias": jnp.zeros(3)}
    chain = optax.chain(optax.adam(rate), head_noise(heat, lambda step: rate * (1 + step)))
    grads, state = jax.tree.map(jnp.zeros_like, params), chain.init(params)
    for step in range(2):
        found, state = chain.update(grads, state, params)
        assert np.var(found["query"]["kernel"]) == pytest.approx(2 * heat * rate * (1 + step), rel=0.03)
        assert not found["bias"].any()


def test_heads_divided_over_devices_are_heads():
    params, grads = tree(0), tree(1)
    mesh = jax.make_mesh((2,), ("heads",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])

    def put(path, x):
        axes = {"query": (None, "heads"), "key": (None, "heads"), "value": (None, "heads"), "out": ("heads",)}
        name = [key.key for key in path][-2]
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes[name]) if x.ndim == 3 else PartitionSpec()))

    divided = [jax.tree_util.tree_map_with_path(put, of) for of in (params, grads)]
    for method in ("svgd", "spos"):
        transformation = repulsive_heads(method, alpha=0.7)
        state = transformation.init(divided[0])
        found = jax.jit(transformation.update)(divided[1], state, divided[0])[0]
        expected = updated(transformation, grads, params)[0]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


def test_it_trains_inside_a_chain():
    params = tree(0)
    chain = optax.chain(repulsive_heads("spos", alpha=0.01), optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    state = chain.init(params)

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(lambda p: sum(jnp.square(x).mean() for x in jax.tree.leaves(p)))(params)
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(20):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("key", [2**32 - 1, jnp.uint32(7), jax.random.key(7), jax.random.PRNGKey(7), jax.random.key(7, impl="rbg")])
def test_keys_of_any_kind(key):
    params, grads = tree(0), tree(1)
    found, _ = updated(repulsive_heads("spos", key=key), grads, params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_its_numbers_may_be_injected():
    params, grads = tree(0), tree(1)
    transformation = optax.inject_hyperparams(repulsive_heads, static_args=("method", "drive", "select"))(alpha=0.7)
    found = jax.jit(transformation.update)(grads, transformation.init(params), params)[0]
    expected = updated(repulsive_heads(alpha=0.7), grads, params)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


def test_boxes_with_names_of_axes_are_what_is_in_them():
    box = lambda any_tree: jax.tree.map(lambda x: nn.Partitioned(x, names=(None,) * x.ndim), any_tree)
    params, grads = tree(0), tree(1)
    found = updated(repulsive_heads(alpha=0.7), box(grads), box(params))[0]
    expected = updated(repulsive_heads(alpha=0.7), grads, params)[0]
    jax.tree.map(np.testing.assert_array_equal, nn.meta.unbox(found), expected)


def test_blackjax_agrees():
    """One step of its SVGD, with our bandwidth and plain descent; alpha = 1."""
    svgd = pytest.importorskip("blackjax.vi.svgd")
    x, g = (np.random.default_rng(seed).normal(size=(6, 35)) for seed in (0, 1))
    with jax.enable_x64(True):
        particles, gradients = jnp.asarray(x), jnp.asarray(g)
        # Its gradient is a function of a particle: each finds its own again.
        score = lambda one: -gradients[jnp.argmin(jnp.square(particles - one).sum(1))]
        optimizer = optax.sgd(1.0)
        state = svgd.init(particles, {"length_scale": 2 * slow.bandwidth(x)}, optimizer)
        theirs = svgd.build_kernel(optimizer)(state, score, svgd.rbf_kernel).particles
        kernel = {"query": {"kernel": particles.T.reshape(5, 7, 6).swapaxes(1, 2)}}
        grads = {"query": {"kernel": gradients.T.reshape(5, 7, 6).swapaxes(1, 2)}}
        updates = updated(repulsive_heads(alpha=1.0), grads, kernel)[0]["query"]["kernel"]
        ours = x - updates.swapaxes(1, 2).reshape(35, 6).T
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
