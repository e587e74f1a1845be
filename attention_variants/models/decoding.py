"""Turning a model into output tokens: compiled, batched, cached, no Python loop over tokens; it stops when every row has ended.

All functions take a source (B, S), whose rows of padding only yield padding, and return tokens (B, length): the token that ends
and then padding where a row ended; the model's config has their ids. `length` is static: one program per length. What happens in a
row does not depend on the other rows.
"""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from jax import lax

from attention_variants.models.transformer import Transformer


def never(config) -> jax.Array:
    """The tokens that are not written whatever the logits."""
    return jnp.array([config.pad, config.begin])


@functools.partial(jax.jit, static_argnames=("model", "length"))
def greedy(model: Transformer, params, source_BS: jax.Array, *, length: int) -> jax.Array:
    """The most probable token at each step."""
    return _one_by_one(model, params, source_BS, length, lambda logits_BV, at: logits_BV.argmax(-1))


@functools.partial(jax.jit, static_argnames=("model", "length"))
def sample(model: Transformer, params, source_BS, key, id_B, *, length: int, temperature=1.0, top_p=1.0) -> jax.Array:
    """A token drawn at each step from softmax(logits / temperature), cut to the most probable ones that hold `top_p` together.

    Args:
      key: a PRNG key. id_B: ids of the examples; an example's draws depend on key and id only.
      temperature: above 0. top_p: in (0, 1] (Holtzman et al. 2020, "nucleus sampling"); both may be traced.
    """
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, id_B)

    def draw(logits_BV, at):
        logits_BV = logits_BV / temperature
        ordered_BV = -jnp.sort(-logits_BV, axis=-1)
        before_BV = jnp.cumsum(jax.nn.softmax(ordered_BV), -1) - jax.nn.softmax(ordered_BV)
        least_B1 = jnp.where(before_BV < top_p, ordered_BV, jnp.inf).min(-1, keepdims=True)
        kept_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
        return jax.vmap(lambda key, logits: jax.random.categorical(jax.random.fold_in(key, at), logits))(keys_B, kept_BV)

    return _one_by_one(model, params, source_BS, length, draw)


def _one_by_one(model, params, source_BS, length: int, choose) -> jax.Array:
    config, bound = model.config, functools.partial(model.apply, {"params": params})
    encoded, mask = bound(source_BS, method="encode")
    start = dict(
        at=0,
        token_B=jnp.full(source_BS.shape[:1], config.begin, jnp.int32),
        ended_B=(source_BS == config.pad).all(1),
        out_BT=jnp.full((source_BS.shape[0], length), config.pad, jnp.int32),
        caches=bound(encoded, mask, length, method="start"),
    )

    def running(s):
        return (s["at"] < length) & ~s["ended_B"].all()

    def step(s):
        logits_B1V, caches = bound(s["token_B"][:, None], s["at"], mask, s["caches"], method="step")
        chosen_B = choose(logits_B1V[:, 0].at[:, never(config)].set(-jnp.inf), s["at"])
        token_B = jnp.where(s["ended_B"], config.pad, chosen_B.astype(jnp.int32))
        return dict(
            at=s["at"] + 1,
            token_B=token_B,
            ended_B=s["ended_B"] | (token_B == config.end),
            out_BT=s["out_BT"].at[:, s["at"]].set(token_B),
            caches=caches,
        )

    return lax.while_loop(running, step, start)["out_BT"]


@functools.partial(jax.jit, static_argnames=("model", "length", "beams"))
def beam(model: Transformer, params, source_BS: jax.Array, *, length: int, beams: int = 4, length_penalty=0.6, limit_B=None):
    """Beam search for the translation y with the greatest log p(y) / ((5 + |y|) / 6)^α (Wu et al. 2016, equation 14).

    A row is done when `beams` hypotheses have ended, each among the `beams` best when it did; one beam is `greedy`. The cache is
    never reordered: the tokens of all beams stay where they were written, and each beam sees the places of its own ancestors.

    Args:
      beams: N, how many hypotheses are followed. length_penalty: α; 0 is none, more favours longer translations.
      limit_B: the most tokens of each row, at most `length`, which it is by default.
    """
    bound, batch, config = functools.partial(model.apply, {"params": params}), source_BS.shape[0], model.config
    encoded, mask = bound(source_BS, method="encode")
    take = lambda x_BM, which_BN: jax.vmap(lambda x, which: x[which])(x_BM, which_BN)
    penalised = lambda log_p, written: log_p / ((5 + written) / 6) ** length_penalty
    nothing = jnp.full((batch, beams), -jnp.inf)
    limit_B = jnp.full(batch, length) if limit_B is None else limit_B
    running_B = lambda s: (s["ended_B"] < beams) & (s["at"] < limit_B)
    start = dict(
        at=0,
        token_BN=jnp.full((batch, beams), config.begin, jnp.int32),
        alive_BN=nothing.at[:, 0].set(0.0),  # log p of what is followed; at first all beams are the same one
        out_BNT=jnp.full((batch, beams, length), config.pad, jnp.int32),
        sees_BNS=jnp.zeros((batch, beams, length * beams), bool),
        score_BN=nothing,  # of hypotheses that have ended, the best first
        ended_BNT=jnp.full((batch, beams, length), config.pad, jnp.int32),
        ended_B=jnp.where((source_BS == config.pad).all(1), beams, 0),  # how many have
        caches=bound(encoded, mask, length * beams, method="start"),
    )

    def step(s):
        at = s["at"]
        itself_BNN = jnp.broadcast_to(jnp.eye(beams, dtype=bool), (batch, beams, beams))
        sees_BNS = lax.dynamic_update_slice_in_dim(s["sees_BNS"], itself_BNN, at * beams, axis=2)
        logits_BNV, caches = bound(s["token_BN"], at, mask, s["caches"], sees_BNS, method="step")
        log_p_BNV = jax.nn.log_softmax(logits_BNV).at[:, :, never(config)].set(-jnp.inf) + s["alive_BN"][:, :, None]
        vocabulary = log_p_BNV.shape[-1]
        # Twice as many as beams, so that as many go on even where each beam has an ending among them.
        log_p_BM, place_BM = top_k(log_p_BNV.reshape(batch, -1), 2 * beams)
        parent_BM, token_BM = place_BM // vocabulary, (place_BM % vocabulary).astype(jnp.int32)
        out_BMT = take(s["out_BNT"], parent_BM).at[:, :, at].set(token_BM)
        ends_BM = (token_BM == config.end) & jnp.isfinite(log_p_BM)
        running_B1 = running_B(s)[:, None]

        new_BN = ends_BM[:, :beams] & running_B1
        new_score_BN = jnp.where(new_BN, penalised(log_p_BM[:, :beams], at + 1), -jnp.inf)
        score_BN, best_BN = lax.top_k(jnp.concatenate([s["score_BN"], new_score_BN], 1), beams)
        alive_BN, next_BN = lax.top_k(jnp.where(token_BM == config.end, -jnp.inf, log_p_BM), beams)
        return dict(
            at=at + 1,
            token_BN=take(token_BM, next_BN),
            alive_BN=alive_BN,
            out_BNT=jnp.where(running_B1[..., None], take(out_BMT, next_BN), s["out_BNT"]),
            sees_BNS=take(sees_BNS, take(parent_BM, next_BN)),
            score_BN=score_BN,
            ended_BNT=take(jnp.concatenate([s["ended_BNT"], out_BMT[:, :beams]], 1), best_BN),
            ended_B=s["ended_B"] + new_BN.sum(1),
            caches=caches,
        )

    s = lax.while_loop(lambda s: running_B(s).any(), step, start)
    # Where nothing has ended, what would have been gone on with.
    return jnp.where(jnp.isfinite(s["score_BN"][:, :1]), s["ended_BNT"][:, 0], s["out_BNT"][:, 0])


def search_all(search: Callable, batches: Iterable) -> list[jax.Array]:
    """`search(batch)` of every batch, in their order.

    Much of a step of a search keeps one core of a CPU busy, so there two batches are searched at a time, by threads, which jax's
    context managers do not reach. Not on several devices: their programs would wait for each other in different orders.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return [search(batch) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda batch: jax.block_until_ready(search(batch)), batches))


def top_k(x_BM: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`: the k greatest of each row, and their places.

    On a CPU, where XLA sorts all that it is given (openxla/xla issue 25487), they are found by maxima; among equals places may be
    others there, and NaN counts as −∞.
    """
    return lax.platform_dependent(
        x_BM, cpu=functools.partial(_top_k_by_maxima, k=k), default=lambda x_BM: tuple(lax.top_k(x_BM, k))
    )


def _top_k_by_maxima(x_BM, k: int, group: int = 64):
    """The k groups with the greatest maxima hold what is looked for."""
    x_BM = jnp.where(jnp.isnan(x_BM), -jnp.inf, x_BM)
    if x_BM.shape[1] <= k * group:
        return _maxima(x_BM, k)
    padded_BM = jnp.pad(x_BM, ((0, 0), (0, -x_BM.shape[1] % group)), constant_values=-jnp.inf)
    x_BGE = padded_BM.reshape(x_BM.shape[0], -1, group)
    _, group_BK = _maxima(x_BGE.max(-1), k)
    held_BKE = jnp.take_along_axis(x_BGE, group_BK[..., None], 1)
    found_BK, at_BK = _maxima(held_BKE.reshape(x_BM.shape[0], -1), k)
    place_BK = jnp.take_along_axis(group_BK, at_BK // group, 1) * group + at_BK % group
    return found_BK, jnp.minimum(place_BK, x_BM.shape[1] - 1)  # −∞ may come from the padding


def _maxima(x_BM, k: int):
    """The maximum, taken out k times; the first of equals."""
    place_M = jnp.arange(x_BM.shape[1], dtype=jnp.int32)

    def take_out(left_BM, _):
        top_B1 = jnp.where(left_BM, x_BM, -jnp.inf).max(-1, keepdims=True)
        at_B1 = jnp.where(left_BM & (x_BM == top_B1), place_M, len(place_M)).min(-1, keepdims=True)
        return left_BM & (place_M != at_B1), (top_B1[:, 0], at_B1[:, 0])

    _, (found_KB, at_KB) = lax.scan(take_out, jnp.ones(x_BM.shape, bool), length=k)
    return found_KB.T, at_KB.T
