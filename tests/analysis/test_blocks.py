"""What tokens contribute adds up to what blocks put out: every variant, kind of block and place of the norm, with padding."""

import jax
import numpy as np
import pytest
from cases.variants import CONFIGS

from attention_variants.analysis import blocks
from attention_variants.data.tokens import PAD
from attention_variants.errors import InputError
from attention_variants.models import layers, transformer

EPSILON = 1e-5


def model(variant, norm: str):
    """Source and target with padding, parameters of which none is 0, and the blocks of every layer."""
    config = transformer.Config(layers=2, width=30, heads=3, feed_forward=14, norm=norm)
    built = transformer.build(config, variant, 23)
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 23, (2, 7)), rng.integers(4, 23, (2, 5))
    source[1, 4:], target[0, 3:] = PAD, PAD
    variables = jax.jit(built.init)(jax.random.key(0), source, target)
    drawn = lambda path, x: x + 0.3 * jax.random.normal(jax.random.key(len(str(path))), x.shape)
    params = {"params": jax.tree_util.tree_map_with_path(drawn, variables["params"])}
    _, traced = jax.jit(lambda of: built.apply(of, source, target, mutable=["trace"]))(params)
    found = blocks.blocks(params["params"], layers.traces(traced["trace"]), config)
    return found, params["params"], traced["trace"]


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("variant", [name for name in CONFIGS if getattr(CONFIGS[name], "project", True)])
def test_contributions_add_up_to_every_block(variant, norm):
    found, params, traced = model(CONFIGS[variant], norm)
    assert len(found) == 6
    for name, block in found.items():
        own = blocks.own_sources(name)
        measured = blocks.measure(block, own=own, epsilon=EPSILON)
        for example in range(2):
            parts = blocks.contributed(block, example, own=own, epsilon=EPSILON)
            np.testing.assert_allclose(parts.total_QD, block.after_BQD[example], rtol=1e-5, atol=1e-5, err_msg=name)
            pairs = measured.residual_BQS if norm == "pre" else measured.normalised_BQS
            alone = measured.own_BQ if norm == "pre" else measured.normalised_own_BQ
            keys = block.weights_BHQS.shape[-1]
            np.testing.assert_allclose(parts.norm_QS[:, :keys], pairs[example], rtol=1e-4, atol=1e-5, err_msg=name)
            at = np.arange(len(parts.bias_QD)) if own else -1
            np.testing.assert_allclose(
                parts.norm_QS[np.arange(len(parts.bias_QD)), at], alone[example], rtol=1e-5, atol=1e-5, err_msg=name
            )
    nets = blocks.feed_forwards(params, found)
    last = ("encoder_0_self", "encoder_1_self", "decoder_0_cross", "decoder_1_cross")
    assert set(nets) == {f"{name}_attention" for name in last}
    for name, net in nets.items():
        given = dict(activation=jax.nn.relu, own=blocks.own_sources(name), epsilon=EPSILON)
        after = traced["_".join(name.split("_")[:2])]["feed_forward_residual"]["after_BQD"]
        passed = blocks.through(found[name], 1, net, **given, queries=2)
        np.testing.assert_allclose(passed.total_QD, after[1], rtol=1e-5, atol=2e-5, err_msg=name)
        parts = blocks.contributed(found[name], 1, own=given["own"], epsilon=EPSILON)
        np.testing.assert_allclose(passed.block_QS, parts.norm_QS, rtol=1e-5, atol=1e-5, err_msg=name)


def test_padding_contributes_nothing_and_changes_nothing():
    found, *_ = model(CONFIGS["standard"], "post")
    block = found["encoder_0_self_attention"]
    measured = blocks.measure(block, own=True, epsilon=EPSILON)
    assert (np.asarray(measured.summed_BQS)[1, :4, 4:] == 0).all()
    cut = lambda x: x[1:, :4]
    short = block._replace(
        weights_BHQS=block.weights_BHQS[1:, :, :4, :4], **{k: cut(getattr(block, k)) for k in ("v_BSHV", "before_BQD", "after_BQD")}
    )
    alone = blocks.measure(short, own=True, epsilon=EPSILON)
    np.testing.assert_allclose(alone.normalised_BQS[0], measured.normalised_BQS[1, :4, :4], rtol=1e-5)
    for name in blocks.MIXING:
        np.testing.assert_allclose(alone.mixing_BQ[name][0], measured.mixing_BQ[name][1, :4], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_mixing_ratios_are_those_of_the_vectors(norm):
    """The norm of all that others contribute, summed, beside that of what is one's own; of weights, their sums."""
    for name, block in model(CONFIGS["standard"], norm)[0].items():
        own = blocks.own_sources(name)
        found = blocks.measure(block, own=own, epsilon=EPSILON).mixing_BQ
        ways = (
            set(blocks.MIXING)
            - (set() if own else {"Attn-W", "Attn-N", "AttnRes-W"})
            - ({"AttnResLn-N"} if norm == "pre" else set())
        )
        assert set(found) == ways, name
        for example in range(2):
            rows = np.arange(block.before_BQD.shape[1])
            at = rows if own else np.full(len(rows), block.weights_BHQS.shape[-1])
            after = blocks.contributed(block, example, own=own, epsilon=EPSILON).vectors_QSD
            before = blocks.contributed(block._replace(norm=None), example, own=own, epsilon=EPSILON).vectors_QSD
            bare = before.at[rows, at].add(-block.before_BQD[example])
            for way, vectors in {"Attn-N": bare, "AttnRes-N": before, "AttnResLn-N": after}.items():
                if way in ways:
                    kept = np.asarray(vectors[rows, at])
                    others = np.linalg.norm(np.asarray(vectors.sum(1)) - kept, axis=-1)
                    expected = others / (others + np.linalg.norm(kept, axis=-1))
                    np.testing.assert_allclose(found[way][example], expected, rtol=1e-4, atol=1e-6, err_msg=f"{name} {way}")
            weights = np.asarray(block.weights_BHQS[example]).mean(0)
            if own:
                others = weights.sum(-1) - weights[rows, rows]
                np.testing.assert_allclose(found["AttnRes-W"][example], others / 2, rtol=1e-5)
                np.testing.assert_allclose(found["Attn-W"][example], others, rtol=1e-5)


def test_attention_without_a_block_around_it_is_refused():
    with pytest.raises(InputError, match="'smoother' has no residual connection around it"):
        blocks.blocks({}, {"smoother": {}}, None)
