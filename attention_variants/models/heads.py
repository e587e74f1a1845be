"""Multi-head attention around any score: projections, variant, attend, output projection."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers

from attention_variants import variants
from attention_variants.ops import attend as attend_lib
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary, rotate
from attention_variants.ops.scores import Prepared, Score


class Memory(NamedTuple):
    """What attention reads from: the score, keys prepared by it, and values. A pytree, so it can be a cache.

    It lies as matrix products read it, so that a cache that is read at every step is never transposed: prepared keys with their
    second axis, that of the keys, last; values heads first. The barrier keeps XLA from transposing in the loop all the same.
    """

    score: Score
    keys_last: Prepared
    v_BHSV: jax.Array

    @classmethod
    def of(cls, score: Score, keys: Prepared, v_BSHV: jax.Array) -> "Memory":
        """From prepared keys (B, S, …) and values (B, S, H, V)."""
        keys_last = jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1), keys)
        return cls(score, *jax.lax.optimization_barrier((keys_last, v_BSHV.swapaxes(1, 2))))

    @property
    def keys(self) -> Prepared:
        """As the score has prepared them."""
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 1), self.keys_last)

    @property
    def v_BSHV(self) -> jax.Array:
        """As they are projected."""
        return self.v_BHSV.swapaxes(1, 2)

    def write(self, new: "Memory", at) -> "Memory":
        """This memory with the places from `at` on overwritten by `new`; the score stays."""

        def put(old, piece, axis=-1):
            return jax.lax.dynamic_update_slice_in_dim(old, piece.astype(old.dtype), at, axis)

        return Memory(self.score, jax.tree.map(put, self.keys_last, new.keys_last), put(self.v_BHSV, new.v_BHSV, axis=2))


class Noise(NamedTuple):
    """What training does to a forward pass.

    Attributes:
      dropout, attention_dropout: rates, traced scalars; None for none. row_B: the ids of the examples.
      repel: `repel(out_BQHV, path)` is what heads put out at the attention layer of a path as the rest of the model gets it, an
        identity that changes the gradient (`particles.outputs`); None for none.
    """

    dropout: jax.Array | float | None
    attention_dropout: jax.Array | float | None
    row_B: jax.Array
    repel: Any = None


def noise_of(key: jax.Array | None, hypers: dict, row_B: jax.Array) -> tuple[Noise | None, dict[str, jax.Array]]:
    """(what a model is called with in training, the keys that `apply` needs then); nothing of either without a key."""
    if key is None:
        return None, {}
    return Noise(hypers["dropout"], hypers["attention_dropout"], row_B, hypers.get("repel")), {"dropout": key}


def check_route(model: nn.Module, attention_dropout: float, *inputs, **more):
    """Raises InputError where the route of a model's attention cannot take what training asks of it; the shapes of its variables.

    Args:
      inputs: what the model is called with before its noise. more: and after it, by name.
    """
    noise = Noise(None, attention_dropout or None, jnp.zeros(1, jnp.uint32))
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    jax.eval_shape(lambda of: model.apply(of, *inputs, noise, rngs={"dropout": jax.random.key(0)}, **more), variables)
    return variables


class MultiHeadAttention(nn.Module):
    """Takes the place of `flax.linen.MultiHeadDotProductAttention`: same parameters, same output with the standard variant.

    What differs: a query that may see no key gets zeros before the output projection, instead of the mean of all values; dropout
    bits belong to examples and not to places in a batch; inputs are (B, length, D). Caches are values (`Memory`), not a collection.

    Attributes:
      num_heads: H; it must divide `qkv_features`.
      dtype: type of the computation; by default that of inputs and parameters. Softmax is float32 at least.
      param_dtype: type of the parameters.
      qkv_features: width of queries, keys and values over all heads; by default the width of the inputs.
      key_features: width of queries and keys alone, where it is not that of values.
      out_features: width of the output; by default the width of the query inputs.
      dropout_rate: dropout of the attention weights (when not `deterministic`), from the PRNG collection "dropout".
      deterministic: no dropout; may be given in the call instead.
      precision: of the projections.
      kernel_init, out_kernel_init, bias_init, out_bias_init, use_bias, normalize_qk: as in flax.linen.
      variant: the Config of an attention variant, or a name: "standard" by default.
      route: how attention is computed, see `attention_variants.attend`.
      rotary: queries and keys are rotated by their positions (`ops.rotary`).
      linear: the class of the four projections. linen's own keeps forward-mode differentiation (`jax.jvp`); `models.affine.Affine`
        is faster backward on a CPU.
    """

    num_heads: int
    dtype: Any = None
    param_dtype: Any = jnp.float32
    qkv_features: int | None = None
    out_features: int | None = None
    dropout_rate: float = 0.0
    deterministic: bool | None = None
    precision: Any = None
    kernel_init: Any = initializers.lecun_normal()
    out_kernel_init: Any = None
    bias_init: Any = initializers.zeros_init()
    out_bias_init: Any = None
    use_bias: bool = True
    normalize_qk: bool = False
    variant: Any = "standard"
    route: str = "auto"
    rotary: bool = False
    linear: type[nn.Module] = nn.DenseGeneral
    key_features: int | None = None

    @nn.compact
    def __call__(
        self,
        inputs_q: jax.Array,
        inputs_k: jax.Array | None = None,
        inputs_v: jax.Array | None = None,
        *,
        mask: Mask | jax.Array | None = None,
        bias=None,
        deterministic: bool | None = None,
        noise: Noise | None = None,
        memory: Memory | None = None,
        remember: bool = False,
    ):
        """Attention of `inputs_q` (B, Q, D) over `inputs_k`, `inputs_v` (B, S, D); self-attention by default.

        Args:
          inputs_q, inputs_k, inputs_v: inputs_v is inputs_k, and inputs_k is inputs_q, where they are not given, and variants then
            know that queries are of the keys' own sequence.
          mask: a `Mask`, or a bool array broadcastable to (B, H, Q, S) as in flax.linen. A Mask also says where queries and keys
            are (`q_at`, `k_at`), for scores and biases that depend on positions.
          bias: what is added to the logits, see `ops.biases`.
          deterministic: no dropout; overrides the attribute, and `noise`.
          noise: dropout with traced rates and example ids; overrides `dropout_rate`.
          memory: keys and values prepared before; read instead of `inputs_k` and `inputs_v`, or with `remember`, to be written to.
          remember: with `inputs_q` of the width that queries will have, only return the `Memory` of `inputs_k` and `inputs_v`: all
            that there is to be read, under `mask`, or where they are not given, places of a sequence that is still to be written.

        Returns:
          (B, Q, out_features), or a Memory.

        Raises:
          ValueError: heads that do not divide `qkv_features` or `key_features`, or inputs that are not (B, length, D).
        """
        if inputs_q.ndim != 3:
            raise ValueError(f"inputs_q has shape {inputs_q.shape}; expected (batch, length, features)")
        if inputs_k is None and inputs_v is not None:
            raise ValueError("inputs_v is given without inputs_k; expected both, or inputs_k alone")
        own = inputs_k is None
        inputs_k = inputs_q if inputs_k is None else inputs_k
        inputs_v = inputs_k if inputs_v is None else inputs_v
        width = self.qkv_features or inputs_q.shape[-1]
        widths = dict.fromkeys(("query", "key"), self.key_features or width) | {"value": width}
        if any(features % self.num_heads for features in widths.values()):
            found = " and ".join(str(features) for features in dict.fromkeys(widths.values()))
            raise ValueError(f"{self.num_heads} heads do not divide the {found} features of queries, keys and values")
        projection = functools.partial(
            self.linear,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
        )
        variant = variants.config(self.variant)
        projected = getattr(variant, "project", True)
        size = widths["key"] // self.num_heads if projected else inputs_k.shape[-1]
        layer = variants.layer(variant, heads=self.num_heads, size=size, name="variant")
        score_of = (lambda *given: Rotary(layer(*given))) if self.rotary else layer

        def project(name, inputs):
            heads = (self.num_heads, widths[name] // self.num_heads)
            if name != "value" and not projected:
                return jnp.broadcast_to(inputs[:, :, None], (*inputs.shape[:2], self.num_heads, inputs.shape[-1]))
            x = projection(heads, kernel_init=self.kernel_init, bias_init=self.bias_init, name=name)(inputs)
            if self.normalize_qk and name != "value":
                norm = nn.LayerNorm(use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype, name=f"{name}_ln")
                x = norm(x)
            return x

        mask = mask if isinstance(mask, Mask) else Mask(dense=mask)
        if remember:
            k_BSHK, (_, k_at_BS) = project("key", inputs_k), mask.positions(0, inputs_k.shape[1])
            score = memory.score if memory else score_of(None, None, None) if own else score_of(None, k_BSHK, mask)
            return Memory.of(score, score.prepare_keys(k_BSHK, k_at_BS), project("value", inputs_v))
        q_at_BQ, k_at_BS = mask.positions(inputs_q.shape[1], inputs_k.shape[1])
        q_BQHK = project("query", inputs_q)
        if memory is None:
            k_BSHK, v_BSHV = project("key", inputs_k), project("value", inputs_v)
            trace(self, x_BSD=inputs_v)
            score = score_of(q_BQHK if own else None, k_BSHK, mask, self._rows(inputs_q.shape[0], deterministic, noise))
            keys = score.prepare_keys(k_BSHK, k_at_BS)
        else:
            score, keys, v_BSHV, k_BSHK = memory.score, memory.keys, memory.v_BSHV, None
        queries = score.prepare_queries(q_BQHK, q_at_BQ)
        out_BQHV, log_normaliser_BHQ = attend_lib.attend_prepared(
            queries,
            keys,
            v_BSHV,
            score=score,
            mask=mask,
            bias=bias,
            dropout=self._dropout(inputs_q.shape[0], deterministic, noise),
            route=self.route,
        )
        trace(self, score=score, mask=mask, bias=bias, log_normaliser_BHQ=log_normaliser_BHQ)
        turned = lambda x, at: rotate(x, at) if self.rotary and x is not None else x
        vectors = dict(q_BQHK=turned(q_BQHK, q_at_BQ), k_BSHK=turned(k_BSHK, k_at_BS))
        trace(self, queries=queries, keys=keys, v_BSHV=v_BSHV, **vectors)
        if noise is not None and noise.repel is not None:
            out_BQHV = noise.repel(out_BQHV, "/".join(self.path))
        return projection(
            self.out_features or inputs_q.shape[-1],
            axis=(-2, -1),
            kernel_init=self.out_kernel_init or self.kernel_init,
            bias_init=self.out_bias_init or self.bias_init,
            name="out",
        )(out_BQHV)

    def _rows(self, batch: int, deterministic: bool | None, noise: Noise | None) -> jax.Array | None:
        """The ids of the examples, where something is to be random."""
        deterministic = self.deterministic if deterministic is None else deterministic
        if noise is not None:
            return None if deterministic else noise.row_B
        return jnp.arange(batch) if deterministic is False else None

    def _dropout(self, batch: int, deterministic: bool | None, noise: Noise | None) -> Dropout | None:
        if noise is not None:
            off = deterministic or noise.attention_dropout is None
            return None if off else Dropout(noise.attention_dropout, self.make_rng("dropout"), noise.row_B)
        if self.dropout_rate == 0.0:
            return None
        if nn.merge_param("deterministic", self.deterministic, deterministic):
            return None
        return Dropout(self.dropout_rate, self.make_rng("dropout"), jnp.arange(batch))


def trace(module: nn.Module, **values):
    """Sows what an analysis may ask for into the collection "trace", where the caller made it mutable."""
    if not module.is_initializing():
        for name, value in values.items():
            module.sow("trace", name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def sown_losses(variables: dict, real_B: jax.Array) -> jax.Array | float:
    """The sum over examples of what variants have sown into the collection "losses"; 0 where they have not.

    Args:
      real_B: bool, which rows are examples, and no filling of a batch.
    """
    return sum((jnp.where(real_B, x_B, 0.0).sum() for x_B in jax.tree.leaves(variables.get("losses", {}))), 0.0)


def trace_weights(trace: dict, **which) -> jax.Array:
    """The attention weights (B, H, Q, S) of one attention layer's entry in the collection "trace", whatever its route.

    Args:
      which: `heads` and `rows`, as in `ops.attend.weights`.
    """
    given = {name: trace[name] for name in ("score", "mask", "bias")}
    found = attend_lib.weights(trace["queries"], trace["keys"], trace["log_normaliser_BHQ"], **given, **which)
    # All keys are here, so rounding of the log-normaliser, which may be far from 0, need not stay.
    total = found.sum(-1, keepdims=True)
    return found / jnp.where(total > 0, total, 1.0)
