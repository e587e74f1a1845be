"""Do weights, or norms, say which tokens matter? Their agreement with what is lost without a token, and with gradients.

    erasure_j = |p(y | x) − p(y | x, token j unknown)|,    gradient_j = ‖∂p(y | x) / ∂e_j‖,    y the answer, e the embeddings

What a layer gives a token is the mean over queries, or with a token that the answer is read from, what that one gives: by weights
(mean over heads), by norms, with the residual connection, and after layer normalisation (Kobayashi et al. 2020, 2021; `ops.norms`).
Spearman's rank correlation over the tokens of a sentence; mean and deviation over sentences. A gradient does not know how large an
embedding is, so of norms less agreement with it is to be expected.

    python -m attention_variants.analysis.erasure --workdir=runs/trec       # a run of classification; erasure.json and a picture
"""

import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from attention_variants.analysis import blocks, start
from attention_variants.analysis.token_kinds import spearman
from attention_variants.data.tokens import END, PAD, UNKNOWN
from attention_variants.errors import InputError
from attention_variants.figures import norms as figures
from attention_variants.train import runs
from attention_variants.train.workdir import write_json


@functools.partial(jax.jit, static_argnames="model")
def erasures(model, params, token_BS: jax.Array) -> jax.Array:
    """(B, S): how much of the answer's probability is gained or lost where a token is unknown; 0 for padding."""

    def one(token_S):
        chances = lambda rows: jax.nn.softmax(model.apply({"params": params}, rows).astype(jnp.float32), axis=-1)
        whole_C = chances(token_S[None])[0]
        without_SC = chances(jnp.where(jnp.eye(len(token_S), dtype=bool), UNKNOWN, token_S))
        answer = whole_C.argmax()
        return jnp.where(token_S == PAD, 0.0, abs(without_SC[:, answer] - whole_C[answer]))

    return jax.lax.map(one, token_BS)


@functools.partial(jax.jit, static_argnames="model")
def gradients(model, params, token_BS: jax.Array) -> jax.Array:
    """(B, S): the norm of the gradient of the answer's probability by the embedding of each token."""

    def one(token_S):
        def chances(moved):
            def move(following, arguments, named, context):
                out = following(*arguments, **named)
                embeds = isinstance(context.module, nn.Embed) and context.method_name == "__call__"
                return out + moved if embeds else out

            with nn.intercept_methods(move):
                return jax.nn.softmax(model.apply({"params": params}, token_S[None]).astype(jnp.float32)[0])

        at_rest = jnp.zeros((len(token_S) + (model.config.pooling == "cls"), model.config.width))
        answer = chances(at_rest).argmax()
        by_SD = jax.grad(lambda moved: chances(moved)[answer])(at_rest)
        return jnp.linalg.norm(by_SD, axis=-1)[-len(token_S) :]

    return jax.lax.map(one, token_BS)


def given(block: blocks.Block, real_BQ: np.ndarray, pooling: str, epsilon: float) -> dict[str, np.ndarray]:
    """By kind of map, (B, S): what a layer gives to each token."""
    found = blocks.measure(block, own=True, epsilon=epsilon)
    maps = {"weights": found.weights_BHQS.mean(1), "norms": found.summed_BQS, "with residual": found.residual_BQS}
    if found.normalised_BQS is not None:
        maps["after layer normalisation"] = found.normalised_BQS
    if pooling == "cls":
        return {kind: np.asarray(map_BQS)[:, 0, 1:] for kind, map_BQS in maps.items()}
    share_BQ = real_BQ / np.maximum(real_BQ.sum(1, keepdims=True), 1)  # of a row that fills the batch up, none
    return {kind: np.einsum("bqs,bq->bs", np.asarray(map_BQS), share_BQ) for kind, map_BQS in maps.items()}


def correlations(one_BS: np.ndarray, other_BS: np.ndarray, counts_BS: np.ndarray) -> np.ndarray:
    """Spearman's of each sentence, over the tokens that count; NaN of fewer than three, or where they are all the same."""
    return np.array(
        [spearman(*(of[counts] for of in row)) for *row, counts in zip(one_BS, other_BS, counts_BS, strict=True)], float
    )


def agreement(task, params, model_state, place) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """By layer, kind of map, and what it is held against ("erasure", "gradient"): the correlation in each sentence."""
    token_BS, config = task.sentences(place)["source"], task.model.config
    counts_BS = (token_BS != PAD) & (token_BS != END)
    truths = {
        "erasure": np.asarray(erasures(task.model, params, token_BS)),
        "gradient": np.asarray(gradients(task.model, params, token_BS)),
    }
    layers = task.attention(params, model_state, place)
    read = blocks.blocks(params, {name: trace for name, (trace, *_) in layers.items()}, config)
    maps = {name: given(block, layers[name][1], config.pooling, config.epsilon) for name, block in read.items()}
    return {
        name: {
            kind: {what: correlations(map_BS, truth_BS, counts_BS) for what, truth_BS in truths.items()}
            for kind, map_BS in kinds.items()
        }
        for name, kinds in maps.items()
    }


def numbers(found: dict) -> dict:
    """The mean and the standard deviation over the sentences that have a correlation; None where too few have."""
    there = lambda rho_B: rho_B[np.isfinite(rho_B)]
    of = lambda rho_B: [float(rho_B.mean()), float(rho_B.std(ddof=1))] if len(rho_B) > 1 else [None, None]
    return jax.tree.map(lambda rho_B: of(there(rho_B)), found)


def draw(workdir: pathlib.Path, tell=print) -> list[pathlib.Path]:
    """A picture of the agreement by layer, and erasure.json, below the run's figures/erasure."""
    loaded = runs.Loaded(workdir, tell)
    if not hasattr(loaded.task, "sentences"):
        raise InputError(f"{workdir} is no run of classification; expected one, whose answer is a class")
    found = numbers(agreement(loaded.task, loaded.params, loaded.model_state, loaded.place))
    folder = loaded.workdir / "figures" / "erasure"
    figures.agreement(folder / "agreement.png", found)
    write_json(folder / "erasure.json", found)
    print(json.dumps({layer: {kind: of["erasure"][0] for kind, of in kinds.items()} for layer, kinds in found.items()}))
    return [folder / "agreement.png", folder / "erasure.json"]


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a training run.")
    start(draw)
