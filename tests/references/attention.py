"""Attention from its formula in float64 loops: every weight by itself, the mask cell by cell. Slow and obvious."""

import math

import numpy as np


def attention(q_BQHK, k_BSHK, v_BSHV, similarity, magnitude, sees=lambda b, h, i, j: True):
    """weight_ij = similarity(q_i, k_j) · magnitude(k_j) / Σ_l similarity(q_i, k_l) · magnitude(k_l), l over what i sees.

    Returns (out_BQHV, weights_BHQS); a query that sees no key gets zeros in both.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (q_BQHK, k_BSHK, v_BSHV))
    batch, queries, heads, _ = q.shape
    keys = k.shape[1]
    out = np.zeros((batch, queries, heads, v.shape[-1]))
    weights = np.zeros((batch, heads, queries, keys))
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                seen = [j for j in range(keys) if sees(b, h, i, j)]
                parts = {j: similarity(q[b, i, h], k[b, j, h]) * magnitude(k[b, j, h]) for j in seen}
                for j in seen:
                    weights[b, h, i, j] = parts[j] / sum(parts.values())
                    out[b, i, h] += weights[b, h, i, j] * v[b, j, h]
    return out, weights


def gaussian(q_K, k_K):
    """The similarity of scaled dot-product attention: exp(−‖q−k‖² / 2√d)."""
    return math.exp(-sum((a - b) ** 2 for a, b in zip(q_K, k_K, strict=True)) / (2 * math.sqrt(len(q_K))))


def growth(k_K):
    """The magnitude of scaled dot-product attention: exp(‖k‖² / 2√d)."""
    return math.exp(sum(a**2 for a in k_K) / (2 * math.sqrt(len(k_K))))


def sees(
    b, h, i, j, *, causal=False, window=None, q_valid=None, k_valid=None, q_segments=None, k_segments=None, q_at=None, k_at=None,
    dense=None,
):  # fmt: skip
    """Whether query i sees key j in head h of example b; keyword arguments are the fields of `Mask`."""

    def of(x, *place):
        x = np.asarray(x)
        return x[tuple(0 if length == 1 else p for length, p in zip(x.shape, place[len(place) - x.ndim :], strict=True))]

    q_place = i if q_at is None else of(q_at, b, i)
    k_place = j if k_at is None else of(k_at, b, j)
    if causal and k_place > q_place:
        return False
    if window is not None and abs(k_place - q_place) >= window:
        return False
    if q_valid is not None and not of(q_valid, b, i):
        return False
    if k_valid is not None and not of(k_valid, b, j):
        return False
    if q_segments is not None and of(q_segments, b, i) != of(k_segments, b, j):
        return False
    return dense is None or bool(of(dense, b, h, i, j))
