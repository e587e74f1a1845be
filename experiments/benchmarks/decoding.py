"""How many sentences a second does beam search translate, against Hugging Face's `generate`?

The 1,000 sentences of Multi30k's test_2016_flickr in German, four beams, the model of size `small` in post-norm, which is what
Marian is: both have the same (random) parameters and the same batches, sorted by length. Each translation is as long as its
reference, so that both take the same number of steps; ends are made improbable before, and forced there. At least 95 % of the
translations are checked to be the same ones: rounding decides between hypotheses of all but equal probability.
"""

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.data.tokens import END, PAD
from attention_variants.models.decoding import beam, greedy, search_all
from attention_variants.tasks.translation import Task
from attention_variants.train import settings as settings_lib
from configs import translation
from experiments.timing import Contender, Table, alternate

BEAMS, LENGTH_PENALTY = 4, 1.0


def measure(quick: bool) -> list[Table]:
    config = translation.get_config("tiny" if quick else "data=multi30k")
    config.model.norm = "post"
    config.task.packed = False
    task = Task.new(settings_lib.parse(config))
    params = without_ends(task.init(jax.random.key(0))[0], config.model.layers)
    tokens = config.task.decode_tokens // BEAMS
    batches = [limited(batch) for batch in task.batches("test", seed=None, max_padding=0.3, round_to=8, batch_tokens=tokens)]
    sentences = sum(int((limit_B > 0).sum()) for _, limit_B in batches)

    def ours(search):
        return lambda: [np.asarray(out) for out in search_all(lambda batch: search(*batch), batches)]

    def by_beam(source_BS, limit_B, beams=BEAMS):
        given = dict(length=int(limit_B.max()), beams=beams, length_penalty=LENGTH_PENALTY, limit_B=jnp.asarray(limit_B))
        return beam(task.model, params, source_BS, **given)

    def by_greedy(source_BS, limit_B):
        return greedy(task.model, params, source_BS, length=int(limit_B.max()))

    contenders = [Contender("attention_variants", ours(by_beam)), *marian(task, config, params, batches)]
    rounds = 2 if quick else 5
    return [
        Table("four beams", alternate(contenders, rounds=rounds, same=assert_alike), sentences, "sentences"),
        Table("one", alternate([Contender("greedy", ours(by_greedy))], rounds=rounds, same=None), sentences, "sentences"),
    ]


def without_ends(params, layers: int):
    """The parameters with a last bias that points away from the embedding of END."""
    params = jax.tree.map(lambda x: x, params)
    end_D = params["embedding"]["embedding"][END]
    params[f"decoder_{layers - 1}"]["feed_forward_residual"]["norm"]["bias"] = -20.0 * end_D / jnp.square(end_D).sum()
    return params


def limited(batch) -> tuple[np.ndarray, np.ndarray]:
    """(source, how long each translation is)."""
    return batch["source"], (batch["target"] != PAD).sum(1).astype(np.int32)


def assert_alike(ours, theirs) -> None:
    same = [(a[:, : b.shape[1]] == b).all(1) for a, b in zip(ours, theirs, strict=True)]
    share = np.concatenate(same).mean()
    assert share >= 0.95, f"only {share:.1%} of the translations are the same"


def marian(task, config, params, batches) -> list[Contender]:
    """The same in `transformers`, where that and PyTorch are installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return []
    from experiments.peers import marian

    longest = max(max(source.shape[1], limit_B.max() + 2) for source, limit_B in batches)
    model = marian.build(config.model, len(task.vocabulary), jax.device_get(params), int(longest))
    run = lambda: [marian.beam(model, *batch, BEAMS, LENGTH_PENALTY) for batch in batches]
    return [Contender(f"Marian, transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}", run)]
