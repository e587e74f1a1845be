"""Attention with any score, mask, bias and route: out_i = Σ_j weight_ij v_j."""

import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops import blockwise, dense, fused, linear
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import Prepared, Score, length

ROUTES = {"dense": dense.route, "blockwise": blockwise.route, "fused": fused.route, "linear": linear.route}

# Logits (B, H, Q, S) from which on "blockwise" takes over from "dense", by backend. On a CPU, measured (docs/speed.md, crossover):
# at 2**24, blockwise takes as long as dense for one sequence with 4 heads, and 1.3 times as long for 32 with 8; at 2**26 it takes
# 0.9 and 1.8 times as long, in a tenth of the memory, which decides. With a causal mask 0.7 to 1.2, and 0.6 to 1.0. Elsewhere not
# measured.
CROSSOVER = {"cpu": 2**25, "gpu": 2**26, "tpu": 2**26}


def attend(
    q_BQHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHV: jax.Array,
    *,
    score: Score,
    mask: Mask | None = None,
    bias=None,
    dropout: Dropout | None = None,
    route: str = "auto",
    explain: bool = False,
) -> jax.Array | tuple[jax.Array, str]:
    """Multi-head attention of queries over keys and values.

    A query whose keys are all masked gets zeros, and zero gradient. Every route is differentiated in reverse;
    "blockwise" also forward over reverse, and over again in reverse at the price of memory that is not proportional to length;
    "dense" in every way (`jax.jvp` alone takes it).

    Args:
      q_BQHK: queries (B, Q, H, K).
      k_BSHK: keys (B, S, H, K).
      v_BSHV: values (B, S, H, V).
      score: the logarithm of similarity times magnitude (`ops.scores`).
      mask: which keys a query may see, and at which positions they are; everything by default. Needed wherever there is padding.
      bias: what is added to the logits (`ops.biases`).
      dropout: dropout of the weights after normalisation.
      route: "dense" (all weights at once), "blockwise" (memory proportional to length), "fused" (others' kernels), "linear"
        (time, too, for scores with `as_kernel`), or "auto" for the best one known for this score and shape, never "linear".
      explain: also return which route is taken, and why.

    Returns:
      (B, Q, H, V), in the type of the values; with `explain`, that and a sentence.

    Raises:
      ValueError: an unknown route, a route that cannot take this (why not, and which can), or shapes that do not fit together.
    """
    _check(q_BQHK, k_BSHK, v_BSHV)
    mask = Mask() if mask is None else mask
    q_at_BQ, k_at_BS = mask.positions(q_BQHK.shape[1], k_BSHK.shape[1])
    queries, keys = score.prepare_queries(q_BQHK, q_at_BQ), score.prepare_keys(k_BSHK, k_at_BS)
    terms = dict(score=score, bias=bias, dropout=dropout)
    route, why = choose(queries, keys, v_BSHV, mask=mask, route=route, **terms)
    out = attend_prepared(queries, keys, v_BSHV, mask=mask, route=route, **terms)[0]
    return (out, f"{route}: {why}") if explain else out


def attend_prepared(
    queries: Prepared,
    keys: Prepared,
    v_BSHV: jax.Array,
    *,
    score: Score,
    mask: Mask | None = None,
    bias=None,
    dropout: Dropout | None = None,
    route: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """`attend` on what the score has already prepared; also returns the log-normaliser (B, H, Q), −inf for empty rows.

    Raises:
      ValueError: as `attend`.
    """
    mask = Mask() if mask is None else mask
    mask.check(v_BSHV.shape[0], length(queries), v_BSHV.shape[1])
    terms = dict(score=score, bias=bias, dropout=dropout)
    route, _ = choose(queries, keys, v_BSHV, mask=mask, route=route, **terms)
    return ROUTES[route](queries, keys, v_BSHV, mask=mask, **terms)


def choose(queries, keys, v_BSHV, *, score, mask: Mask | None = None, bias=None, dropout=None, route="auto") -> tuple[str, str]:
    """(the route that is taken, why) for prepared queries and keys.

    Raises:
      ValueError: an unknown route, or one that cannot take this; a score or a bias that is no pytree.
    """
    for name, x in (("score", score), ("bias", bias)):
        if x is not None and jax.tree_util.all_leaves([x]):
            known = "registered by jax.tree_util.register_dataclass, say, so that what it has learned gets gradients"
            raise ValueError(f"the {name} is a {type(x).__name__}, which is no pytree; expected one, {known}")
    backend, mask = jax.default_backend(), Mask() if mask is None else mask
    refusal = fused.refusal(queries, keys, v_BSHV, score=score, mask=mask, bias=bias, dropout=dropout, backend=backend)
    batch, k_length, heads, _ = v_BSHV.shape
    logits, crossover = batch * heads * length(queries) * k_length, CROSSOVER.get(backend, CROSSOVER["gpu"])
    small = logits < crossover
    size = f"{logits:,} logits are {'fewer than' if small else 'not fewer than'} the {crossover:,} of the crossover"
    if route == "auto":
        if backend in ("gpu", "tpu") and refusal is None and not small:
            return "fused", f"{type(score).__name__} is an inner product; {size} on {backend}"
        return ("dense" if small else "blockwise"), f"{size} on {backend}" + (f"; not fused: {refusal}" if refusal else "")
    if route not in ROUTES:
        raise ValueError(f"unknown route {route!r}; choose from auto, {', '.join(sorted(ROUTES))}")
    if route == "linear":
        refusal = linear.refusal(queries, keys, score=score, mask=mask, bias=bias, dropout=dropout)
    if route in ("fused", "linear") and refusal is not None:
        raise InputError(f"route={route!r} cannot take this: {refusal}; take route='blockwise', or 'auto'")
    return route, "as asked for"


def weights(
    queries: Prepared,
    keys: Prepared,
    log_normaliser_BHQ,
    *,
    score: Score,
    mask: Mask | None = None,
    bias=None,
    heads=slice(None),
    rows: tuple[int, int] | None = None,
) -> jax.Array:
    """The attention weights (B, H, Q, S), recomputed from the log-normaliser that any route returns; empty rows are zeros.

    Args:
      heads: an index or slice of heads. rows: (first, number) of the queries; both as few as one wants to look at.
    """
    first, number = rows or (0, length(queries))
    queries = jax.tree.map(lambda x: x[:, first : first + number], queries)
    logits = dense.masked_logits(queries, keys, score=score, mask=mask or Mask(), bias=bias, starts=(first, 0))
    log_normaliser = log_normaliser_BHQ[:, :, first : first + number]
    finite = jnp.where(jnp.isfinite(log_normaliser), log_normaliser, 0.0)
    return jnp.exp(logits - finite[..., None])[:, heads]


def _check(q, k, v):
    for name, x in (("queries", q), ("keys", k), ("values", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} have shape {x.shape}; expected (batch, length, heads, head size)")
    if q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit; expected (B, Q, H, K), (B, S, H, K), (B, S, H, V)"
        )
