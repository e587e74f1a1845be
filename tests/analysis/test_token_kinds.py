"""What is said of kinds of tokens, and of frequent and rare ones, is what loops over tokens say."""

import numpy as np
import pytest
from scipy import stats

from attention_variants.analysis import blocks, token_kinds


def measured(weights, lengths, mixing=None):
    nothing = dict.fromkeys(blocks.Norms._fields)
    return blocks.Norms(**nothing | {"weights_BHQS": weights, "lengths_BHS": lengths, "mixing_BQ": mixing})


def draw(seed=0, shape=(2, 3, 5, 7)):
    rng = np.random.default_rng(seed)
    weights = rng.random(shape)
    return weights / weights.sum(-1, keepdims=True), rng.random((*shape[:2], shape[3]))


def test_kinds_of_tokens():
    kinds = {
        "[CLS]": ("[CLS]",),
        "</s>": ("</s>",),
        "punctuation": (".", "▁,", "##!", "Ġ..."),
        "other": ("▁the", "##ing", "3", "▁", "<unk>", "[UNK]"),
    }
    for kind, tokens in kinds.items():
        assert {token_kinds.kind_of(token) for token in tokens} == {kind}
    seen = np.array([[True, True, False], [True, False, True]])
    assert token_kinds.kinds([["a", ".", "b"], ["[SEP]"]], seen).tolist() == [["other", "punctuation", ""], ["[SEP]", "", "other"]]


def test_pairs_and_what_is_received_are_of_real_tokens():
    weights, lengths = draw()
    real = np.array([[True] * 5, [True, True, False, False, False]])
    kinds = np.array([["other"] * 5 + ["special", ""], ["other", "special", "", "", "", "", ""]])
    weights[0, :, :2, 3] = 0.0  # as a mask has it
    found = measured(weights, lengths)
    of = token_kinds.pairs(found, real, kinds)
    rows = [
        (weights[b, h, q, s], lengths[b, h, s], kinds[b, s])
        for b, h, q, s in np.ndindex(weights.shape)
        if real[b, q] and kinds[b, s] and weights[b, h, q, s]
    ]
    assert sorted(zip(*map(np.ndarray.tolist, of), strict=True)) == sorted(rows)
    correlation = token_kinds.rank_correlation(of)
    assert set(correlation) == {"other", "special"}
    for kind, rho in correlation.items():
        chosen = np.array([row[:2] for row in rows if row[2] == kind], float).T
        assert rho == pytest.approx(stats.spearmanr(*chosen)[0])
    assert len(of.few(10).weight_N) == 10
    assert of.few(10**6) is of
    given = token_kinds.received(found, real, kinds)["special"]
    for name, carried in (("weight", np.ones_like(lengths)), ("norm", lengths)):
        each = [
            sum(weights[b, h, q, s] * carried[b, h, s] for s in range(7) if kinds[b, s] == "special")
            for b, h, q in np.ndindex(2, 3, 5)
            if real[b, q]
        ]
        assert given[name] == pytest.approx(np.mean(each))


def test_a_rank_correlation_needs_something_that_varies():
    same = token_kinds.Pairs(np.ones(4), np.arange(4.0), np.array(["other"] * 4))
    assert token_kinds.rank_correlation(same) == {"other": None}


def test_mixing_is_of_queries_of_a_kind():
    share = np.random.default_rng(0).random((2, 3))
    real, kinds = np.array([[True, True, True], [True, False, False]]), np.array([["other", "[CLS]", "other"], ["other", "", ""]])
    found = token_kinds.mixing(measured(None, None, {"AttnRes-N": share}), real, kinds)
    expected = {"all": share[real], "other": share[[0, 0, 1], [0, 2, 0]], "[CLS]": share[0, 1]}
    assert found == {kind: {"AttnRes-N": pytest.approx(of.mean())} for kind, of in expected.items()}


def test_weights_of_tokens_are_of_the_queries_that_see_them():
    """Else the last tokens of a causal map, which few see, would get little."""
    weights, lengths = draw(shape=(2, 3, 7, 7))
    weights = np.tril(weights)
    real = np.arange(7) < np.array([[7], [5]])
    found = token_kinds.of_tokens(measured(weights, lengths, {"Attn-N": np.ones((2, 7))}), real, own=True)
    assert found.keys() == {"weight", "norm", "Attn-N"}
    for b, j in np.argwhere(real):
        seen = [weights[b, :, i, j].mean() for i in range(7) if real[b, i] and i >= j]
        assert found["weight"][b, j] == pytest.approx(np.mean(seen))
        assert found["norm"][b, j] == pytest.approx(lengths[b, :, j].mean())
    assert token_kinds.of_tokens(measured(weights, lengths), real, own=False).keys() == {"weight", "norm"}


def test_ranks_are_of_words_and_punctuation():
    keys = [["[CLS]", "the", "dog", ".", "unseen"], ["the"]]
    kinds = token_kinds.kinds(keys, np.arange(5) < np.array([[5], [1]]))
    rank_BS = token_kinds.ranks(keys, kinds, {"dog": 3, "the": 9, ".": 7, "[CLS]": 1})
    assert rank_BS.tolist() == [[0, 1, 3, 2, 4], [1, 0, 0, 0, 0]]
    of_others = 10.0 * (rank_BS == 0)  # whose values count nowhere
    found = token_kinds.by_frequency(rank_BS, {"weight": of_others - rank_BS, "norm": of_others + 1.0})
    assert found == {"weight": pytest.approx(-1.0), "norm": None}


def test_what_is_as_frequent_has_the_same_rank():
    """Else a text in which every word stands once would have ranks by place."""
    keys = [["once", "again", "the", "never"]]
    kinds, count = np.full((1, 4), "other"), {"the": 5, "again": 2, "once": 2}
    assert token_kinds.ranks(keys, kinds, count).tolist() == [[2.5, 2.5, 1.0, 4.0]]
    rank_BS = token_kinds.ranks(keys, kinds, dict.fromkeys(keys[0], 1))
    assert token_kinds.by_frequency(rank_BS, {"norm": np.arange(4.0)[None]}) == {"norm": None}
