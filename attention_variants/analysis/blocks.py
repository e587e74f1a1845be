"""The attention blocks of a model, read from its trace: weights, what they carry, and what stands around them; and their norms.

Kobayashi et al. 2020 and 2021; `ops.norms` has the formulas. Of every variant, in the encoder, the decoder and across.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.models.heads import trace_weights
from attention_variants.models.layers import in_order
from attention_variants.ops import contributions, norms
from attention_variants.ops.contributions import Contributions

# As the paper has them: attention alone, with the residual connection, after layer normalisation; of weights or of norms.
MIXING = ("Attn-W", "Attn-N", "AttnRes-W", "AttnRes-N", "AttnResLn-N")


class Block(NamedTuple):
    """An attention layer and what stands around it, of a batch: a pytree.

    Attributes:
      weights_BHQS, v_BSHV: of its heads. x_BSD: what values are made of.
      before_BQD: what the residual connection passes by it; after_BQD: what comes out of all.
      value, out: `kernel` (D, H, V) or (H, V, D), and perhaps `bias`, of the projections of values and of the output.
      norm: `scale` and `bias` of the layer normalisation after it; None where it stands before.
    """

    weights_BHQS: jax.Array
    v_BSHV: jax.Array
    x_BSD: jax.Array
    before_BQD: jax.Array
    after_BQD: jax.Array
    value: dict[str, jax.Array]
    out: dict[str, jax.Array]
    norm: dict[str, jax.Array] | None

    @property
    def bias_D(self) -> jax.Array:
        """b_O."""
        return self.out.get("bias", jnp.zeros(self.out["kernel"].shape[-1]))

    @property
    def expansion(self) -> jax.Array:
        """How much longer vectors are after values and output projection (`ops.norms.expansion`)."""
        bias_HV = self.value.get("bias", jnp.zeros(self.value["kernel"].shape[1:]))
        return norms.expansion(self.value["kernel"], bias_HV, self.out["kernel"], self.bias_D)


class Norms(NamedTuple):
    """Of one attention layer; of cross-attention, where a token is no source of its own, what it keeps stands in `own` alone.

    Attributes:
      weights_BHQS: w. lengths_BHS: ‖f_h(x_j)‖. summed_BQS: ‖Σ_h w f‖.
      residual_BQS: the same with the residual connection, and own_BQ: ‖R_ii‖, or ‖x_i‖. normalised_BQS, normalised_own_BQ: after
        layer normalisation; None where it stands before.
      mixing_BQ: by name (`MIXING`), how much of a token comes from others, from 0 to 1.
    """

    weights_BHQS: jax.Array
    lengths_BHS: jax.Array
    summed_BQS: jax.Array
    residual_BQS: jax.Array
    own_BQ: jax.Array
    normalised_BQS: jax.Array | None
    normalised_own_BQ: jax.Array | None
    mixing_BQ: dict[str, jax.Array]

    @property
    def weighted_BHQS(self) -> jax.Array:
        """‖w f_h(x_j)‖, of each head."""
        return self.weights_BHQS * self.lengths_BHS[:, :, None]


def blocks(params, layers: dict, config) -> dict[str, Block]:
    """By attention layer, "encoder_0_self_attention" say, in the order of the model.

    Args:
      params: of the model. layers: the entries in the collection "trace", as `models.layers.traces` has them.
      config: the model's, whose `norm` says whether layer normalisation stands after residual connections.

    Raises:
      InputError: attention without an output projection or a residual connection.
    """
    for name, trace in layers.items():
        if "before_BQD" not in trace:
            raise InputError(
                f"the attention layer {name!r} has no residual connection around it; expected a model that is a Transformer"
            )
    found = {}
    for name in in_order(layers):
        trace = layers[name]
        layer, attention = params[name[: -len(_kind(name)) - 1]], _kind(name)
        norm = layer[f"{attention}_residual"]["norm"] if config.norm == "post" else None
        around = (trace[key] for key in ("v_BSHV", "x_BSD", "before_BQD", "after_BQD"))
        found[name] = Block(trace_weights(trace), *around, layer[attention]["value"], layer[attention]["out"], norm)
    return found


def own_sources(name: str) -> bool:
    """Whether the tokens of a layer are sources themselves: of self-attention."""
    return _kind(name) == "self_attention"


@functools.partial(jax.jit, static_argnames=("own", "epsilon"))
def measure(block: Block, *, own: bool, epsilon: float) -> Norms:
    """The norms of one layer, in float32 at least, an example after the other.

    Args:
      own: tokens are sources themselves (self-attention). epsilon: of the layer normalisation.
    """
    one = lambda weights, v, before: _one(weights, v, before, block, own, epsilon)
    return jax.lax.map(lambda of: one(*of), (block.weights_BHQS, block.v_BSHV, block.before_BQD))


def _one(weights_HQS, v_SHV, x_QD, block: Block, own: bool, epsilon: float) -> Norms:
    f_HDS = norms.transformed(v_SHV, block.out["kernel"])
    x_QD = x_QD.astype(f_HDS.dtype)
    attended_QD = jnp.einsum("hqs,hds->qd", weights_HQS, f_HDS, precision="highest")
    kept_QD = norms.own(weights_HQS, f_HDS, x_QD) if own else x_QD
    summed_QS, own_Q = norms.summed(weights_HQS, f_HDS), jnp.linalg.norm(kept_QD, axis=-1)
    with_own = norms.with_own if own else lambda pairs_QS, _: pairs_QS
    mixing_Q = _of_weights(weights_HQS.mean(0), own) | {"AttnRes-N": norms.mixing(attended_QD + x_QD, kept_QD)}
    if own:
        mixing_Q["Attn-N"] = norms.mixing(attended_QD, kept_QD - x_QD)
    after = after_own_Q = None
    if block.norm is not None:
        scale_D = block.norm["scale"]
        s_Q = norms.deviation(attended_QD + x_QD + block.bias_D, epsilon)
        folded_QD = norms.centred(kept_QD, scale_D)
        after = with_own(norms.summed(weights_HQS, norms.centred(f_HDS, scale_D, axis=1)), folded_QD) / s_Q[:, None]
        after_own_Q = jnp.linalg.norm(folded_QD, axis=-1) / s_Q
        mixing_Q["AttnResLn-N"] = norms.mixing(norms.centred(attended_QD + x_QD, scale_D), folded_QD)
    residual_QS = with_own(summed_QS, kept_QD)
    return Norms(weights_HQS, norms.lengths(f_HDS), summed_QS, residual_QS, own_Q, after, after_own_Q, mixing_Q)


def _of_weights(weights_QS: jax.Array, own: bool) -> dict[str, jax.Array]:
    """What the paper holds norms against: half of the weights' share for the residual connection, half for attention."""
    if not own:  # all of it is of others
        return {}
    others_Q = weights_QS.sum(-1) - jnp.diagonal(weights_QS)
    return {"Attn-W": others_Q, "AttnRes-W": others_Q / 2}


def contributed(block: Block, example: int, *, own: bool, epsilon: float) -> Contributions:
    """The vectors of one example behind those norms, and what comes from biases: together `after_BQD`.

    Of cross-attention the last of the sources, one more than there are keys, is the token itself.
    """
    weights_HQS, f_HDS, x_QD, at_Q = _sources(block, example, own)
    parts = contributions.residual(contributions.of_attention(weights_HQS, f_HDS, block.bias_D), x_QD, at_Q)
    return _normalised(parts, block.norm, epsilon)


class FeedForward(NamedTuple):
    """The feed-forward net after an attention block, and the layer normalisation that belongs to it: after it, or before."""

    inner: dict[str, jax.Array]
    out: dict[str, jax.Array]
    norm: dict[str, jax.Array]


class Through(NamedTuple):
    """Norms (Q, S) of what each source contributes to one example, further and further on (Kobayashi et al. 2024).

    Attributes:
      block: after the attention block ("Atb"). net: after the feed-forward net ("AtbFf"). residual: with the residual connection
        around it ("AtbFfRes"). normalised: and layer normalisation ("AtbFfResLn"); None where it stands before.
      total_QD: what all contributions and biases add up to, the output of the layer.
    """

    block_QS: jax.Array
    net_QS: jax.Array
    residual_QS: jax.Array
    normalised_QS: jax.Array | None
    total_QD: jax.Array


def feed_forwards(params, found: dict[str, Block]) -> dict[str, FeedForward]:
    """By attention layer, for those that a feed-forward net follows: the last one of each layer of the model."""
    last = {name[: -len(_kind(name)) - 1]: name for name in sorted(found, key=own_sources, reverse=True)}
    nets = {name: params[layer] for layer, name in last.items()}
    return {
        name: FeedForward(of["feed_forward"]["inner"], of["feed_forward"]["out"], of["feed_forward_residual"]["norm"])
        for name, of in nets.items()
    }


@functools.partial(jax.jit, static_argnames=("activation", "own", "epsilon", "queries"))
def through(
    block: Block, example: int, net: FeedForward, *, activation: Callable, own: bool, epsilon: float, queries: int = 8
) -> Through:
    """The contributions of one example through the feed-forward net.

    Args:
      activation: g of the net. own, epsilon: as in `measure`. queries: how many at a time; memory is proportional to that.
    """
    weights_HQS, f_HDS, x_QD, at_Q = _sources(block, example, own)

    def one(of):
        weights_HS, x_D, at = of
        parts = contributions.of_attention(weights_HS[:, None], f_HDS, block.bias_D)
        parts = _normalised(contributions.residual(parts, x_D[None], at[None]), block.norm, epsilon)
        inside = parts if block.norm is not None else _normalised(parts, net.norm, epsilon)
        after = contributions.feed_forward(inside, net.inner, net.out, activation)
        both = after + parts
        last = _normalised(both, net.norm, epsilon) if block.norm is not None else both
        norms_S = [of.norm_QS[0] for of in (parts, after, both)]
        return Through(*norms_S, None if block.norm is None else last.norm_QS[0], last.total_QD[0])

    return jax.lax.map(one, (weights_HQS.swapaxes(0, 1), x_QD, at_Q), batch_size=queries)


def _sources(block: Block, example: int, own: bool):
    """Weights, f, and x of an example, and from which source x comes: of cross-attention from one more than there are keys."""
    weights_HQS, v_SHV, x_QD = (of[example] for of in (block.weights_BHQS, block.v_BSHV, block.before_BQD))
    at_Q = jnp.arange(len(x_QD))
    if not own:
        at_Q = jnp.full(len(x_QD), len(v_SHV))
        weights_HQS, v_SHV = jnp.pad(weights_HQS, ((0, 0), (0, 0), (0, 1))), jnp.pad(v_SHV, ((0, 1), (0, 0), (0, 0)))
    return weights_HQS, norms.transformed(v_SHV, block.out["kernel"]), x_QD, at_Q


def _normalised(parts: Contributions, norm: dict | None, epsilon: float) -> Contributions:
    return parts if norm is None else contributions.normalised(parts, norm["scale"], norm["bias"], epsilon)


def _kind(name: str) -> str:
    """ "self_attention" of "encoder_0_self_attention"."""
    return "_".join(name.split("_")[-2:])
