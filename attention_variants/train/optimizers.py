"""The optimiser as a pure function of settings and hypers: hypers are traced, so one program serves every learning rate."""

import jax.numpy as jnp
import optax

from attention_variants.train import durations
from attention_variants.train.settings import Optimizer


def schedule(settings: Optimizer, *, total: int, per_epoch: int, width: int):
    """How the learning rate changes: a function of the step (from 0) that is multiplied by `hypers.learning_rate`.

    "transformer" is width^−½ · min(step^−½, step · warmup^−3/2) with steps from 1 (Vaswani et al. 2017, equation 3). The others
    reach 1 at the end of the warm-up.
    """
    warmup = max(1, durations.as_steps(settings.warmup, "optimizer.warmup", per_epoch=per_epoch, total=total))
    rest = max(1, total - warmup)

    def shape(step):
        step = step + 1.0
        rise = jnp.minimum(step / warmup, 1.0)
        match settings.schedule:
            case "transformer":
                return width**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)
            case "inverse_sqrt":
                return rise * jnp.sqrt(warmup / jnp.maximum(step, warmup))
            case "cosine":
                return rise * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((step - warmup) / rest, 0, 1)))
            case "constant":
                return rise

    return shape


def make(settings: Optimizer, learning_rate, shape) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled weight decay, with the rate `learning_rate · shape(step)`; `learning_rate` may be traced."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip) if settings.clip else optax.identity(),
        optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay) if settings.weight_decay else optax.identity(),
        optax.scale_by_learning_rate(lambda step: learning_rate * shape(step)),
    )
