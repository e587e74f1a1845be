"""Classification of sentences by a Transformer encoder: ListOps, the six sets of Kim 2014, or your own tab-separated file.

Beside its own numbers, the split that a run is judged on has those of classifiers that hardly read (`data.baselines`): what is not
above them has learned nothing of order.
"""

import copy
import dataclasses
import functools
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants import data as sources
from attention_variants import models, tasks
from attention_variants.data import baselines, labelled, vectors
from attention_variants.data.batches import Batches, Ragged, Tokens, together
from attention_variants.data.labelled import Labelled
from attention_variants.data.subwords import Subwords
from attention_variants.data.tokens import BEGIN, END, PAD, UNKNOWN
from attention_variants.errors import InputError
from attention_variants.models import layers
from attention_variants.models.heads import check_route, noise_of, sown_losses, trace_weights
from attention_variants.ops.losses import cross_entropy


@dataclasses.dataclass(frozen=True)
class Config:
    """How sentences become batches.

    `tokens`: words are what white space separates, of which those that are rarer than `least` are unknown; a vocabulary of subwords
    has the size `subwords`, 0 is characters. It is of the training split; in a set of folds, of the whole set, as in Kim's code, so
    that all folds share it. `vectors`: a text file of pre-trained vectors of words, as wide as the model, which their embeddings
    begin as. `max_length`: sentences with more tokens are not trained on, and counted. `batch_tokens`: rows of a batch
    (never under 8) times its length, at the most. `max_padding`: shapes of batches are added until less than this share of all
    tokens is padding; 1.0 is one shape, which runs in one program want.
    """

    tokens: Literal["words", "subwords"] = "words"
    least: int = 1
    subwords: int = 4000
    vectors: str = ""
    max_length: int = 256
    batch_tokens: int = 2048
    max_padding: float = 0.1

    def __post_init__(self):
        for name, number in (("least", 1), ("subwords", 0), ("max_length", 1), ("batch_tokens", 1)):
            if getattr(self, name) < number:
                raise InputError(f"task.{name} is {getattr(self, name)}; expected at least {number}")
        if not 0 < self.max_padding <= 1:
            raise InputError(f"task.max_padding is {self.max_padding}; expected a share above 0 and up to 1")
        if self.vectors and self.tokens != "words":
            raise InputError(f"task.vectors are of words, and task.tokens is {self.tokens!r}; expected words")


@dataclasses.dataclass(frozen=True)
class Hypers(tasks.Hypers):
    """Rates of dropout and of label smoothing, each in [0, 1)."""

    SWITCHES = ("dropout", "attention_dropout")
    RATES = (*SWITCHES, "label_smoothing")

    dropout: float = 0.1
    attention_dropout: float = 0.0
    label_smoothing: float = 0.0


class Task:
    """The classification task, see `tasks`."""

    metric, mode = "accuracy", "max"

    def __init__(self, settings, vocabulary: Subwords, classes: tuple[str, ...], known: dict[str, np.ndarray] | None = None):
        """`known`: pre-trained "vectors" of tokens, and which "tokens"."""
        self.config, self.data, self.seed = settings.task, settings.data, settings.run.seed
        self.source = sources.load(settings.name("data"), sources.LABELLED)
        self.vocabulary, self.classes, self.known, self.width = vocabulary, classes, known or {}, settings.model.width
        build = models.load(settings.name("model")).build
        self.model = build(settings.model, settings.variant, len(vocabulary), outputs=len(classes))
        self._labelled = functools.cache(self._read)
        self._tokens = functools.cache(self._tokenise)
        self._split = functools.cache(lambda seed: labelled.split(self._labelled(), seed, self._fits()))
        self._floors = functools.cache(self._accuracies_of_baselines)
        self._logits = jax.jit(lambda params, token_BS: self.model.apply({"params": params}, token_BS))
        traced = lambda params, token_BS: self.model.apply({"params": params}, token_BS, mutable=["trace"])[1]["trace"]
        self._trace = jax.jit(lambda params, token_BS: layers.traces(traced(params, token_BS)))

    @classmethod
    def new(cls, settings) -> "Task":
        """A task with a vocabulary of its own. Raises InputError for bad data before anything is written."""
        config, found = settings.task, sources.load(settings.name("data"), sources.LABELLED).labelled(settings.data)
        texts = [found.texts[i] for i in found.pool]
        words = config.tokens == "words"
        vocabulary = Subwords.of_words(texts, config.least) if words else Subwords.train(texts, config.subwords)
        known = vectors.of(vocabulary, config.vectors, settings.model.width) if config.vectors else None
        task = cls(settings, vocabulary, found.classes, known)
        task._labelled = lambda: found
        task._split(task.seed)
        if settings.model.route in ("fused", "linear"):
            check_route(task.model, settings.hypers.attention_dropout, jnp.ones((1, 2), jnp.int32))
        return task

    @classmethod
    def saved(cls, settings, workdir: pathlib.Path) -> "Task":
        """The task of a workdir, with the vocabulary, the classes and the vectors saved there.

        Raises InputError, when the data is first asked for, where its labels are others.
        """
        with np.load(workdir / "classes.npz") as kept:
            known = {name: kept[name] for name in kept.files if name != "classes"}
            return cls(settings, Subwords.load(workdir / "vocabulary.json"), tuple(kept["classes"].tolist()), known)

    def save(self, workdir: pathlib.Path) -> None:
        self.vocabulary.save(workdir / "vocabulary.json")
        np.savez(workdir / "classes.npz", classes=np.array(self.classes), **self.known)

    def seeded(self, seed: int) -> "Task":
        """The same task of a run with another seed, so of another split where that depends on it; data and model are shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @property
    def splits(self) -> tuple[str, ...]:
        return self._labelled().names

    @property
    def fixed(self) -> tuple[str, ...]:
        """What a split depends on that is drawn."""
        return ("run.seed", "task.max_length") if self._labelled().drawn else ()

    def describe(self) -> str:
        """One line about the data, and about the words whose vectors were known."""
        rows, split = self._labelled(), self._split(self.seed)
        counts = [f"{len(getattr(split, name)):,} for {name.replace('train', 'training')}" for name in rows.names]
        long = int((~self._fits()[np.setdiff1d(rows.pool, split.test)]).sum())
        trained = f"; {long:,} not trained on, with more than {self.config.max_length} tokens" if long else ""
        said = f"sentences of {len(self.classes)} classes: {', '.join(counts)}{trained}; {len(self.vocabulary):,} tokens"
        if self.known:
            said += f", {len(self.known['tokens']):,} of them with vectors from {self.config.vectors}"
        return said

    def batches(self, split: str, *, seed: int | None, **kwargs) -> Batches:
        """The batches of a split, "train" without its overlong sentences; keyword arguments as those of `Batches`.

        Sources are sentences, and targets labels: token c + 1 is class c, as 0 is padding.
        """
        kwargs = dict(batch_tokens=self.config.batch_tokens, max_padding=self.config.max_padding, seed=seed) | kwargs
        if split != "train":
            return Batches(self._of(getattr(self._split(self.seed), split)), **kwargs)
        pool = self._labelled().pool
        pool = pool[self._fits()[pool]]
        trained = lambda seed: self._split(self.seed if seed is None else seed).train
        return Batches(self._of(pool), **kwargs, among=lambda seed: np.searchsorted(pool, trained(seed)))

    def tokens(self, batch) -> int:
        """How many tokens of a batch are not padding."""
        return int((batch["source"] != PAD).sum())

    def init(self, key):
        """(params, model_state): float32 parameters, embeddings of known words at their vectors; classification has no state."""
        params = self.model.init(key, jnp.ones((1, 2), jnp.int32))["params"]
        if self.known:
            table_VD = params["embedding"]["embedding"]
            vectors_ND = self.known["vectors"].astype(table_VD.dtype)
            params["embedding"]["embedding"] = table_VD.at[self.known["tokens"]].set(vectors_ND)
        return params, {}

    def loss(self, params, model_state, batch, key, hypers):
        """Label-smoothed cross-entropy in nats, summed over sentences; without a key, no dropout and no smoothing.

        In training, what variants add for each sentence is in it, but not in the metric `loss`; it is one of its own, `added`.
        """
        noise, rngs = noise_of(key, hypers, batch["id"])
        logits_BC, sown = self.model.apply({"params": params}, batch["source"], noise, rngs=rngs, mutable=["losses"])
        label_B1, counts_B1 = batch["target"] - 1, batch["target"] != PAD
        smoothing = 0.0 if key is None else hypers["label_smoothing"]
        total, weight = cross_entropy(logits_BC[:, None], label_B1, counts_B1, smoothing)
        right = ((logits_BC.argmax(-1)[:, None] == label_B1) & counts_B1).sum()
        added, metrics = sown_losses(sown, counts_B1[:, 0]), {"accuracy": (right.astype(weight.dtype), weight)}
        apart = {"loss": (total, weight), "added": (added, weight)} if sown else {}
        return total + added, weight, metrics | apart, model_state

    def evaluate(self, params, model_state, split, place) -> tuple[dict, list[dict[str, str]]]:
        """Loss, accuracy and macro-F1 on a whole split, and the answers.

        Of the split that a run is judged on, test where there is one, the accuracies of baselines too (`floor_…`).
        """
        del model_state
        rows, data = getattr(self._split(self.seed), split), self._labelled()
        logits_NC, label_N = self._classify(params, self._of(rows).source, place), data.label_N[rows]
        answer_N = logits_NC.argmax(1)
        log_NC = logits_NC - np.logaddexp.reduce(logits_NC, axis=1, keepdims=True)
        numbers = {
            "loss": float(-np.mean(log_NC[np.arange(len(rows)), label_N])),
            "accuracy": float(np.mean(answer_N == label_N)),
            "macro_f1": macro_f1(counted(label_N, answer_N, len(self.classes))),
        }
        if split == data.names[-1]:
            numbers |= self._floors(self.seed, split)
        columns = zip([data.texts[i] for i in rows], label_N, answer_N, strict=True)
        return numbers, [dict(source=text, reference=self.classes[y], answer=self.classes[a]) for text, y, a in columns]

    def predict(self, params, model_state, lines, place) -> tuple[list[str], list[str]]:
        """One class per line, and sentences on what was unusual: lines longer than in training, lines without a known word."""
        del model_state
        source, limit, remarks = self.vocabulary.encode(lines), self.config.max_length, []
        nothing = [bool((row[:-1] == UNKNOWN).all()) for row in source]
        for found, what in (
            (source.lengths() > limit, f"longer than the {limit} tokens of training"),
            (np.array(nothing), "of nothing but words that are not in the vocabulary"),
        ):
            if found.any():
                remarks.append(f"{found.sum()} of {len(lines)} lines are {what} (first: line {found.argmax() + 1})")
        return [self.classes[c] for c in self._classify(params, source, place).argmax(1)], remarks

    def traces(self, params, model_state, place) -> dict:
        """By layer, what attention weights can be recomputed from, and the tokens: a validation sentence of about twenty."""
        del model_state, place
        rows = self._of(self._split(self.seed).validation[:20]).source
        row = min(rows, key=lambda row: abs(len(row) - 20))
        names = ["[CLS]"] * (self.model.config.pooling == "cls") + self.vocabulary.pieces(row)
        return {name: (trace, names, names) for name, trace in sorted(self._trace(params, jnp.asarray(row)[None]).items())}

    def sentences(self, place) -> dict[str, np.ndarray]:
        """The first validation sentences, as a batch whose `source` are their tokens."""
        return together(self._of(self._split(self.seed).validation), multiple=place.multiple)

    def attention(self, params, model_state, place) -> dict:
        """By layer, what weights can be recomputed from, which queries are tokens, and the keys: of `sentences`."""
        del model_state
        batch, front = self.sentences(place), int(self.model.config.pooling == "cls")
        keys = [["[CLS]"] * front + self.vocabulary.pieces(row) for row in batch["source"]]
        real_BQ = np.pad(batch["source"] != PAD, ((0, 0), (front, 0)), "edge")
        return {name: (trace, real_BQ, keys) for name, trace in self._trace(params, place(batch)["source"]).items()}

    def figures(self, params, model_state, place, folder: pathlib.Path) -> list[pathlib.Path]:
        """Which class is taken for which, on the validation split; then the weights of every layer and head on a sentence of it."""
        from attention_variants.figures import confusion, heatmaps  # matplotlib takes a second to import

        rows = self._split(self.seed).validation
        answer_N = self._classify(params, self._of(rows).source, place).argmax(1)
        paths = [folder / "confusion.png"]
        confusion.draw(paths[0], counted(self._labelled().label_N[rows], answer_N, len(self.classes)), self.classes)
        for name, (trace, queries, keys) in self.traces(params, model_state, place).items():
            paths.append(folder / f"{name}.png")
            heatmaps.draw(paths[-1], np.asarray(trace_weights(trace))[0], queries, keys, title=name.replace("_", " "))
        return paths

    def _read(self) -> Labelled:
        found = self.source.labelled(self.data)
        if found.classes != self.classes:
            there, then = (", ".join(names) for names in (found.classes, self.classes))
            raise InputError(f"the labels of the data are {there}; expected those that the run was trained with, {then}")
        return found

    def _tokenise(self) -> Tokens:
        data = self._labelled()
        return Tokens(self.vocabulary.encode(data.texts), Ragged.of([label + 1] for label in data.label_N))

    def _of(self, rows: np.ndarray) -> Tokens:
        return Tokens(*(Ragged.of(side[i] for i in rows) for side in self._tokens()))

    def _fits(self) -> np.ndarray:
        """(N,): which sentences may be trained on."""
        return self._tokens().source.lengths() <= self.config.max_length

    def _accuracies_of_baselines(self, seed: int, split: str) -> dict[str, float]:
        of, label_N = self._split(seed), self._labelled().label_N
        given = [x for rows in (of.train, getattr(of, split)) for x in (self._of(rows).source, label_N[rows])]
        names = (self.vocabulary.pieces([token])[0] for token in range(len(self.vocabulary)))
        is_word_V = np.array([any(c.isalnum() for c in name) for name in names])
        is_word_V[[PAD, BEGIN, END]] = False
        return baselines.accuracies(*given, is_word_V)

    def _classify(self, params, source: Ragged, place) -> np.ndarray:
        """(N, classes): logits of sentences, float64, in their order."""
        logits_NC = np.empty((len(source), len(self.classes)))
        nothing = Ragged.of([[PAD]] * len(source))
        kept = dict(batch_tokens=4 * self.config.batch_tokens, max_padding=0.3, multiple=place.multiple, round_to=8)
        for batch in Batches(Tokens(source, nothing), seed=None, **kept):
            logits_BC = np.asarray(self._logits(params, place(batch)["source"]))
            real_B = (batch["source"] != PAD).any(1)
            logits_NC[batch["id"][real_B]] = logits_BC[real_B]
        return logits_NC


def counted(label_N, answer_N, classes: int) -> np.ndarray:
    """(classes, classes): how many of each class were taken for each."""
    return np.bincount(label_N * classes + answer_N, minlength=classes**2).reshape(classes, classes)


def macro_f1(count_CC: np.ndarray) -> float:
    """The mean of F1 over classes, of those that are there or were answered."""
    there_C = count_CC.sum(0) + count_CC.sum(1)
    return float(np.mean(2 * np.diag(count_CC)[there_C > 0] / there_C[there_C > 0]))
