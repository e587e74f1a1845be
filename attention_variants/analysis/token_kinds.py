"""What weights and norms have to do with which token it is: special tokens, punctuation, others; frequent ones and rare ones.

The first questions of Kobayashi et al. 2020, "Attention is not only a weight" (section 4), and of their mixing ratios (2021).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from attention_variants.analysis.blocks import MIXING, Norms

WORDS = ("other", "punctuation")  # kinds of tokens that a text has, and not the model
FEWEST = 3  # pairs that a rank correlation is of
MOST = 200_000  # pairs that a rank correlation is of, drawn evenly: more change no digit that is shown


def kind_of(token: str) -> str:
    """What attention treats alike: a special token ([CLS], </s>) is a kind of its own, "punctuation", or "other"."""
    bare = token.removeprefix("##").lstrip("▁Ġ")
    if token[:1] + token[-1:] in ("[]", "<>") and len(token) > 2:
        return "other" if "unk" in token.lower() else token
    return "other" if any(map(str.isalnum, bare)) or not bare else "punctuation"


class Pairs(NamedTuple):
    """Queries and keys that they see, in every head: weight, ‖f_h(x_j)‖, and the kind of the key."""

    weight_N: np.ndarray
    length_N: np.ndarray
    kind_N: np.ndarray

    def few(self, most: int) -> "Pairs":
        """At most so many of them, drawn evenly, in their order."""
        size = len(self.weight_N)
        return self if size <= most else Pairs(*(of[np.sort(np.random.default_rng(0).choice(size, most, False))] for of in self))


def pairs(found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> Pairs:
    """Of each kind of key at most `MOST`; a key that a query may not see has no weight.

    Args: real_BQ: which queries are tokens. kind_BS: of each key, "" where it is none.
    """
    weights_BHQS, lengths_BHS, drawn = np.asarray(found.weights_BHQS), np.asarray(found.lengths_BHS), []
    for kind in np.unique(kind_BS[kind_BS != ""]).tolist():
        at = np.flatnonzero((weights_BHQS > 0) & real_BQ[:, None, :, None] & (kind_BS == kind)[:, None, None])
        at = at if len(at) <= MOST else np.random.default_rng(0).choice(at, MOST, replace=False)
        b, h, q, s = np.unravel_index(at, weights_BHQS.shape)
        drawn.append(Pairs(weights_BHQS[b, h, q, s], lengths_BHS[b, h, s], np.full(len(at), kind)))
    return Pairs(*(np.concatenate(of) for of in zip(*drawn, strict=True)))


def rank_correlation(of: Pairs) -> dict[str, float | None]:
    """Spearman's, between weight and norm, by kind of key; None where one of them is the same everywhere."""
    return {kind: spearman(*(values[of.kind_N == kind] for values in of[:2])) for kind in np.unique(of.kind_N).tolist()}


def received(found: Norms, real_BQ: np.ndarray, kind_BS: np.ndarray) -> dict[str, dict[str, float]]:
    """By kind of key, what a query gives to all keys of it, mean over queries and heads: by `weight` and by `norm` of each head."""
    maps = {"weight": np.asarray(found.weights_BHQS), "norm": np.asarray(found.weighted_BHQS)}
    mean = lambda map_BHQS, kind: (map_BHQS * (kind_BS == kind)[:, None, None]).sum(-1).swapaxes(1, 2)[real_BQ].mean()
    return {
        kind: {name: float(mean(map_BHQS, kind)) for name, map_BHQS in maps.items()} for kind in np.unique(kind_BS[kind_BS != ""])
    }


def kinds(keys: Sequence[Sequence[str]], visible_BS: np.ndarray) -> np.ndarray:
    """The kind of each key that any query may see, (B, S), else ""; of rows of a table, of which some have names, "other"."""
    named = [[kind_of(key) for key in row] + ["other"] * (visible_BS.shape[1] - len(row)) for row in keys]
    return np.where(visible_BS, np.array([row[: visible_BS.shape[1]] for row in named]), "")


def mixing(found: Norms, real_BQ: np.ndarray, kind_BQ: np.ndarray) -> dict[str, dict[str, float]]:
    """By kind of query, and "all", the mean of each mixing ratio."""
    shares = {name: np.asarray(found.mixing_BQ[name]) for name in MIXING if name in found.mixing_BQ}
    of = {"all": real_BQ} | {kind: real_BQ & (kind_BQ == kind) for kind in np.unique(kind_BQ[real_BQ]).tolist()}
    return {kind: {name: float(share_BQ[at_BQ].mean()) for name, share_BQ in shares.items()} for kind, at_BQ in of.items()}


def of_tokens(found: Norms, real_BQ: np.ndarray, *, own: bool) -> dict[str, np.ndarray]:
    """Of each token, (B, S), mean over heads: the `weight` that it gets from a query that sees it, and the `norm` that it carries.

    Where tokens are queries, too (`own`), also how much of each comes from others, by the names of the mixing ratios.
    """
    weights_BHQS = np.asarray(found.weights_BHQS) * real_BQ[:, None, :, None]
    seen_BS = np.maximum((weights_BHQS > 0).any(1).sum(1), 1)
    means = {"weight": weights_BHQS.mean(1).sum(1) / seen_BS, "norm": np.asarray(found.lengths_BHS).mean(1)}
    return means | ({name: np.asarray(share_BQ) for name, share_BQ in found.mixing_BQ.items()} if own else {})


def ranks(keys: Sequence[Sequence[str]], kind_BS: np.ndarray, count: Mapping[str, int]) -> np.ndarray:
    """(B, S): ranks of words and punctuation by frequency, 1 the most frequent; equal ones share theirs; 0 of other tokens."""
    counted = {token: n for token, n in count.items() if kind_of(token) in WORDS}
    rank_of = dict(zip(counted, stats.rankdata([-n for n in counted.values()]).tolist(), strict=True))
    rank_BS = np.zeros(kind_BS.shape)
    for rank_S, kind_S, row in zip(rank_BS, kind_BS, keys, strict=True):
        for at, token in enumerate(row[: len(rank_S)]):
            if kind_S[at] in WORDS:
                rank_S[at] = rank_of.get(token, len(rank_of) + 1)
    return rank_BS


def by_frequency(rank_BS: np.ndarray, values: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Spearman's correlation of each value of tokens with their rank, over all tokens that have one; None where it has none."""
    at_BS = rank_BS > 0
    return {name: spearman(rank_BS[at_BS], value_BS[at_BS]) for name, value_BS in values.items()}


def spearman(one_N: np.ndarray, other_N: np.ndarray) -> float | None:
    """The rank correlation; None of fewer than three pairs, or where one side is the same everywhere."""
    varies = len(one_N) >= FEWEST and np.ptp(one_N) > 0 and np.ptp(other_N) > 0
    return float(stats.spearmanr(one_N, other_N)[0]) if varies else None
