"""Translation of sentence pairs by an encoder-decoder: dates, Multi30k, or your own parallel text."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants import data as sources
from attention_variants import models, tasks
from attention_variants.data.batches import Batches, Tokens
from attention_variants.data.subwords import Subwords
from attention_variants.data.tokens import END, PAD
from attention_variants.errors import InputError, unknown
from attention_variants.models.decoding import greedy
from attention_variants.models.heads import Noise, trace_weights
from attention_variants.ops.losses import cross_entropy


@dataclasses.dataclass(frozen=True)
class Config:
    """How text becomes batches.

    `batch_tokens`: rows of a batch times the longer of its two lengths, at the most. `subwords`: size of the joint vocabulary, 0 is
    characters. `max_length`: training pairs with more tokens on a side are left out, and counted. `max_padding`: batch shapes are
    added until less than this share of all tokens is padding.
    """

    batch_tokens: int = 4096
    subwords: int = 8000
    max_length: int = 100
    max_padding: float = 0.1

    def __post_init__(self):
        for name, least in (("batch_tokens", 1), ("subwords", 0), ("max_length", 2)):
            if getattr(self, name) < least:
                raise InputError(f"task.{name} is {getattr(self, name)}; expected at least {least}")
        if not 0 < self.max_padding <= 1:
            raise InputError(f"task.max_padding is {self.max_padding}; expected a share above 0 and up to 1")


@dataclasses.dataclass(frozen=True)
class Hypers(tasks.Hypers):
    """Rates of dropout and of label smoothing, each in [0, 1)."""

    dropout: float = 0.1
    attention_dropout: float = 0.1
    label_smoothing: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        for name in ("dropout", "attention_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"hypers.{name} is {getattr(self, name)}; expected a rate of at least 0 and below 1")


class Task:
    """The translation task, see `tasks`."""

    mode = "max"

    def __init__(self, settings, vocabulary: Subwords):
        self.config, self.data = settings.task, settings.data
        self.source = sources.load(settings.name("data"))
        self.metric, self.splits = self.source.METRIC, self.source.splits(self.data)
        self.vocabulary, self.width = vocabulary, settings.model.width
        self.model = models.load(settings.name("model")).build(settings.model, settings.variant, len(vocabulary))
        self.dropped = 0
        self._read = functools.cache(lambda split: _read(self.source, self.data, split))
        self._tokens = functools.cache(self._tokenise)

    @classmethod
    def new(cls, settings) -> "Task":
        """A task whose vocabulary is trained on the training split. Raises InputError for bad data before anything is written."""
        source = sources.load(settings.name("data"))
        pairs = _read(source, settings.data, "train")
        task = cls(settings, Subwords.train(pairs.source + pairs.target, settings.task.subwords))
        for split in {"train", "validation", "test"} & set(task.splits):
            task._tokens(split)
        return task

    @classmethod
    def saved(cls, settings, workdir: pathlib.Path) -> "Task":
        """The task of a workdir, with the vocabulary saved there."""
        return cls(settings, Subwords.load(workdir / "vocabulary.json"))

    def save(self, workdir: pathlib.Path) -> None:
        self.vocabulary.save(workdir / "vocabulary.json")

    def describe(self) -> str:
        """One line about the data."""
        pairs = len(self._tokens("train").source)
        left_out = f"; {self.dropped:,} left out with more than {self.config.max_length} tokens" if self.dropped else ""
        return f"{pairs:,} training pairs{left_out}; {len(self.vocabulary):,} tokens in the vocabulary"

    def batches(self, split: str, **kwargs) -> Batches:
        """The batches of a split; keyword arguments as for `Batches`."""
        kwargs = {"max_padding": self.config.max_padding, "batch_tokens": self.config.batch_tokens} | kwargs
        return Batches(self._tokens(split), **kwargs)

    def tokens(self, batch) -> int:
        """How many tokens of a batch are not padding, source and target together."""
        return int((batch["source"] != PAD).sum() + (batch["target"] != PAD).sum())

    def init(self, key):
        """(params, model_state): float32 parameters from a PRNG key; translation has no model state."""
        tokens = jnp.ones((1, 2), jnp.int32)
        return self.model.init(key, tokens, tokens)["params"], {}

    def loss(self, params, model_state, batch, key, hypers):
        """Label-smoothed cross-entropy in nats, summed over target tokens; without a key, no dropout and no smoothing."""
        noise, rngs = None, None
        if key is not None:
            noise = Noise(hypers["dropout"], hypers["attention_dropout"], batch["id"])
            rngs = {"dropout": key}
        logits = self.model.apply({"params": params}, batch["source"], batch["target"], noise, rngs=rngs)
        smoothing = 0.0 if key is None else hypers["label_smoothing"]
        total, weight = cross_entropy(logits, batch["target"], batch["target"] != PAD, smoothing)
        return total, weight, {}, model_state

    def evaluate(self, params, model_state, split, place) -> dict:
        """Per-token loss and perplexity, and BLEU (cased, 13a) and exact match of greedy decoding, on a whole split."""
        del model_state
        reference = self._read(split).target
        total = weight = 0.0
        for batch in self.batches(split, seed=None, max_padding=0.3, multiple=place.multiple):
            sums = _log_likelihood(self.model, params, place(batch))
            total, weight = total + float(sums[0]), weight + float(sums[1])
        translations, unfinished = self._translate(params, self._tokens(split).source, place)
        bleu, signature = _bleu(translations, reference)
        return {
            "loss": total / weight,
            "perplexity": float(np.exp(min(total / weight, 700.0))),
            "bleu": bleu,
            "bleu_signature": signature,
            "exact_match": float(np.mean([a == b for a, b in zip(translations, reference, strict=True)])),
            "unfinished": unfinished,
        }

    def predict(self, params, model_state, lines, place) -> tuple[list[str], int]:
        """One translation per line, and how many were cut at the output limit before they ended."""
        del model_state
        return self._translate(params, self.vocabulary.encode(lines), place)

    def longer_than_trained(self, lines: list[str]) -> list[int]:
        """The numbers (from 1) of the lines with more tokens than any training sentence was allowed."""
        return [n for n, row in enumerate(self.vocabulary.encode(lines), 1) if len(row) > self.config.max_length]

    def samples(self, params, model_state, place, count: int = 3) -> list[dict[str, str]]:
        """The first validation sentences: source, reference and translation."""
        pairs = self._read("validation")
        translations, _ = self.predict(params, model_state, pairs.source[:count], place)
        columns = zip(pairs.source, pairs.target, translations, strict=False)
        return [dict(source=s, reference=r, translation=t) for s, r, t in columns]

    def figures(self, params, model_state, place, folder: pathlib.Path) -> list[pathlib.Path]:
        """Heatmaps of every attention layer and head on a validation sentence and its translation."""
        from attention_variants.figures import heatmaps  # matplotlib takes a second to import, and training does not need it

        del model_state
        source = min(self._tokens("validation").source[:20], key=lambda row: abs(len(row) - 20))
        out = np.asarray(greedy(self.model, params, jnp.asarray([source]), length=_output_limit(len(source))))[0]
        out = out[: int((out != PAD).sum())]
        _, traced = self.model.apply({"params": params}, jnp.asarray([source]), jnp.asarray(out[None]), mutable=["trace"])
        rows, columns = self.vocabulary.pieces(out), self.vocabulary.pieces(source)
        axes = {"encoder": (columns, columns), "decoder": (rows, ["<s>", *rows[:-1]]), "cross": (rows, columns)}
        paths = []
        for layer, trace in sorted(traced["trace"].items()):
            for name, kind in (("self_attention", layer.split("_")[0]), ("cross_attention", "cross")):
                if name in trace:
                    weights_HQS = np.asarray(trace_weights(trace[name]))[0]
                    path = folder / f"{layer}_{name}.png"
                    heatmaps.draw(path, weights_HQS, *axes[kind], title=f"{layer} {name}".replace("_", " "))
                    paths.append(path)
        return paths

    def _tokenise(self, split: str) -> Tokens:
        pairs = self._read(split)
        tokens = Tokens(self.vocabulary.encode(pairs.source), self.vocabulary.encode(pairs.target))
        if split != "train":
            return tokens
        fits = [max(len(s), len(t)) <= self.config.max_length for s, t in zip(*tokens, strict=True)]
        self.dropped = len(fits) - sum(fits)
        if not any(fits):
            raise InputError(f"every training pair is longer than task.max_length, {self.config.max_length}; expected a larger one")
        return Tokens(*([row for row, fit in zip(side, fits, strict=True) if fit] for side in tokens))

    def _translate(self, params, source: list[list[int]], place) -> tuple[list[str], int]:
        """Greedy translations in the order of the sources, and how many reached the output limit."""
        plan = Batches(
            Tokens(source, [[END]] * len(source)),
            batch_tokens=self.config.batch_tokens,
            seed=None,
            max_padding=0.3,
            multiple=place.multiple,
        )
        rows: list = [None] * len(source)
        for batch in plan:
            length = _output_limit(batch["source"].shape[1])
            out_BT = np.asarray(greedy(self.model, params, place(batch)["source"], length=length))
            for at in np.flatnonzero((batch["source"] != PAD).any(1)):
                row = batch["id"][at]
                rows[row] = out_BT[at][: _output_limit(len(source[row]))]
        return self.vocabulary.decode(rows), sum(END not in row for row in rows)


@functools.partial(jax.jit, static_argnames="model")
def _log_likelihood(model, params, batch):
    """(negative log-likelihood, number of target tokens) of a batch."""
    logits = model.apply({"params": params}, batch["source"], batch["target"])
    return cross_entropy(logits, batch["target"], batch["target"] != PAD)


def _output_limit(source_length: int) -> int:
    """How many tokens a translation may have; it depends on its own source alone, not on its batch."""
    return 2 * source_length + 10


def _read(source, config, split: str):
    if split not in source.splits(config):
        raise unknown("split", split, source.splits(config))
    return source.read(config, split)


def _bleu(translations: list[str], references: list[str]) -> tuple[float, str]:
    """sacreBLEU's corpus BLEU (cased, 13a tokenisation), and its signature."""
    import sacrebleu  # here because it takes a while to import

    metric = sacrebleu.BLEU()
    score = metric.corpus_score(translations, [references]).score
    return score, str(metric.get_signature())
