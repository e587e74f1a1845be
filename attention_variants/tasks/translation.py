"""Translation of sentence pairs by an encoder-decoder: dates, Multi30k, or your own parallel text."""

import copy
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants import data as sources
from attention_variants import models, tasks
from attention_variants.data import bleu
from attention_variants.data.batches import Batches, Epochs, Ragged, Tokens, together
from attention_variants.data.packing import PackedBatches
from attention_variants.data.subwords import Subwords
from attention_variants.data.tokens import END, PAD
from attention_variants.errors import InputError
from attention_variants.models import layers
from attention_variants.models.decoding import beam, greedy, sample, search_all
from attention_variants.models.heads import check_route, noise_of, sown_losses, trace_weights
from attention_variants.models.transformer import Packed
from attention_variants.ops.losses import projected_cross_entropy


@dataclasses.dataclass(frozen=True)
class Config:
    """How text becomes batches.

    `batch_tokens`: rows of a batch (never under 8) times the longer of its two lengths, at the most; `decode_tokens`: the same for
    batches that are only scored or translated (a row of each beam times the source's length; it may write twice that and ten, and
    a CPU translates two at a time), lower where memory is short. `subwords`: size of the joint vocabulary, 0 is characters.
    `max_length`: training pairs with more tokens on a side are left out, and counted. `packed`: a row of a training batch holds
    several pairs, and every batch has one shape; otherwise a row is a pair, and pairs of like lengths are batched. `max_padding`:
    rows are made longer, or shapes more, until less than this share of all tokens is padding. `beams`: of the search for
    translations, 1 is greedy; `length_penalty`: its α, which favours longer ones. `temperature`: where it is above 0, translations
    are drawn, by `run.seed`, from the most probable tokens that hold `top_p` together.
    """

    batch_tokens: int = 4096
    decode_tokens: int = 8192
    subwords: int = 8000
    max_length: int = 100
    packed: bool = False
    max_padding: float = 0.1
    beams: int = 1
    length_penalty: float = 0.6
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        for name, least in (("batch_tokens", 1), ("decode_tokens", 1), ("subwords", 0), ("max_length", 2), ("beams", 1)):
            if getattr(self, name) < least:
                raise InputError(f"task.{name} is {getattr(self, name)}; expected at least {least}")
        if not 0 <= self.length_penalty < 100:
            raise InputError(f"task.length_penalty is {self.length_penalty}; expected a number from 0 to 100, 0.6 say")
        if not 0 <= self.temperature < np.inf:
            raise InputError(f"task.temperature is {self.temperature}; expected 0 for none, or a number above, 0.7 say")
        if not 0 < self.top_p <= 1:
            raise InputError(f"task.top_p is {self.top_p}; expected a probability above 0 and up to 1")
        if self.temperature and self.beams > 1:
            raise InputError(f"task.beams is {self.beams} with a task.temperature, which draws one translation; expected 1")
        if not 0 < self.max_padding <= 1:
            raise InputError(f"task.max_padding is {self.max_padding}; expected a share above 0 and up to 1")


@dataclasses.dataclass(frozen=True)
class Hypers(tasks.Hypers):
    """Rates of dropout and of label smoothing, each in [0, 1)."""

    SWITCHES = ("dropout", "attention_dropout")
    RATES = (*SWITCHES, "label_smoothing")

    dropout: float = 0.1
    attention_dropout: float = 0.1
    label_smoothing: float = 0.1


class Task:
    """The translation task, see `tasks`."""

    mode, fixed = "max", ()

    def __init__(self, settings, vocabulary: Subwords, pairs: dict | None = None):
        self.config, self.data, self.seed = settings.task, settings.data, settings.run.seed
        self.source = sources.load(settings.name("data"), sources.PAIRS)
        self.metric, self.splits = self.source.METRIC, self.source.splits(self.data)
        self.vocabulary, self.width = vocabulary, settings.model.width
        self.model = models.load(settings.name("model")).build(settings.model, settings.variant, len(vocabulary))
        self._pairs = dict(pairs or {})
        self._tokens = functools.cache(self._tokenise)
        self._training_tokens = functools.cache(self._leave_out_the_long)
        traced = lambda params, *tokens: self.model.apply({"params": params}, *tokens, mutable=["trace"])[1]["trace"]
        self._trace = jax.jit(lambda params, batch: layers.traces(traced(params, batch["source"], batch["target"])))
        self._log_likelihood = jax.jit(lambda params, batch: self.loss(params, {}, batch, None, {})[:2])

    @classmethod
    def new(cls, settings) -> "Task":
        """A task whose vocabulary is trained on the training split. Raises InputError for bad data before anything is written."""
        source = sources.load(settings.name("data"), sources.PAIRS)
        splits = [split for split in ("train", "validation", "test") if split in source.splits(settings.data)]
        pairs = {split: source.read(settings.data, split) for split in splits}
        task = cls(settings, Subwords.train(pairs["train"].source + pairs["train"].target, settings.task.subwords), pairs)
        task._training_tokens()
        if settings.model.route in ("fused", "linear"):
            task._check_route(settings.hypers)
        return task

    @classmethod
    def saved(cls, settings, workdir: pathlib.Path) -> "Task":
        """The task of a workdir, with the vocabulary saved there."""
        return cls(settings, Subwords.load(workdir / "vocabulary.json"))

    def seeded(self, seed: int) -> "Task":
        """The same task of a run with another seed; data and models are shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def save(self, workdir: pathlib.Path) -> None:
        self.vocabulary.save(workdir / "vocabulary.json")

    def describe(self) -> str:
        """One line about the data."""
        pairs = len(self._training_tokens().source)
        dropped = len(self._tokens("train").source) - pairs
        left_out = f"; {dropped:,} left out with more than {self.config.max_length} tokens" if dropped else ""
        return f"{pairs:,} training pairs{left_out}; {len(self.vocabulary):,} tokens in the vocabulary"

    def batches(self, split: str, **kwargs) -> Epochs:
        """The batches of a split, "train" without its overlong pairs, packed if the config says so; keyword arguments as theirs."""
        kwargs = {"max_padding": self.config.max_padding, "batch_tokens": self.config.batch_tokens} | kwargs
        if split != "train":
            return Batches(self._tokens(split), **kwargs)
        return (PackedBatches if self.config.packed else Batches)(self._training_tokens(), **kwargs)

    def tokens(self, batch) -> int:
        """How many tokens of a batch are not padding, source and target together."""
        return int((batch["source"] != PAD).sum() + (batch["target"] != PAD).sum())

    def init(self, key):
        """(params, model_state): float32 parameters from a PRNG key; translation has no model state."""
        token = jnp.ones((1, 2), jnp.int32)
        return self.model.init(key, token, token, packed=self._two_packed())["params"], {}

    def loss(self, params, model_state, batch, key, hypers):
        """Label-smoothed cross-entropy in nats, summed over target tokens; without a key, no dropout and no smoothing.

        In training, what variants add for each pair is in it, but not in the metric `loss`; it is one of its own, `added`.
        """
        noise, rngs = noise_of(key, hypers, batch["id"])
        inputs = batch["source"], batch["target"], noise, _packed(batch)
        x_BTD, sown = self.model.apply({"params": params}, *inputs, method="hidden", rngs=rngs, mutable=["losses"])
        table_VD = self.model.apply({"params": params}, method="table")
        smoothing = 0.0 if key is None else hypers["label_smoothing"]
        total, weight = projected_cross_entropy(x_BTD, table_VD, batch["target"], batch["target"] != PAD, smoothing)
        added = sown_losses(sown, (batch["target"] != PAD).any(1))
        return total + added, weight, {"loss": (total, weight), "added": (added, weight)} if sown else {}, model_state

    def _check_route(self, hypers: Hypers) -> None:
        """Raises InputError where the model's route cannot take what training or decoding asks of it."""
        token = jnp.ones((1, 2), jnp.int32)
        variables = check_route(self.model, hypers.attention_dropout, token, token, packed=self._two_packed())
        jax.eval_shape(lambda params: greedy(self.model, params, token, length=2), variables["params"])

    def evaluate(self, params, model_state, split, place) -> tuple[dict, list[dict[str, str]]]:
        """Per-token loss and perplexity, and BLEU (cased, 13a) and exact match of the translations, on a whole split; and those."""
        del model_state
        source, reference, _ = self._read_split(split)
        total = weight = 0.0
        for batch in Batches(self._tokens(split), **self._in_order(place)):
            sums = self._log_likelihood(params, place(batch))
            total, weight = total + float(sums[0]), weight + float(sums[1])
        translations, unfinished = self._translate(params, self._tokens(split).source, place)
        score, signature = bleu.corpus(translations, reference)
        numbers = {
            "loss": total / weight,
            "perplexity": float(np.exp(min(total / weight, 700.0))),
            "bleu": score,
            "bleu_signature": signature,
            "exact_match": float(np.mean([a == b for a, b in zip(translations, reference, strict=True)])),
            "unfinished": unfinished,
        }
        rows = zip(source, reference, translations, strict=True)
        return numbers, [dict(source=s, reference=r, answer=t) for s, r, t in rows]

    def predict(self, params, model_state, lines, place) -> tuple[list[str], list[str]]:
        """One translation per line, and sentences on what was unusual: lines longer than in training, translations cut short."""
        del model_state
        source, limit, remarks = self.vocabulary.encode(lines), self.config.max_length, []
        if (longer := np.flatnonzero(source.lengths() > limit)).size:
            many = f"{len(longer)} of {len(lines)} lines are longer than the {limit} tokens of training"
            remarks.append(f"{many} (first: line {longer[0] + 1}); they are translated whole all the same")
        translations, unfinished = self._translate(params, source, place)
        if unfinished:
            remarks.append(f"{unfinished} of {len(lines)} translations had not ended at the output limit")
        return translations, remarks

    def traces(self, params, model_state, place) -> dict:
        """By layer, what attention weights can be recomputed from, and the tokens of queries and keys: a validation sentence."""
        del model_state
        source = min(itertools.islice(self._tokens("validation").source, 20), key=lambda row: abs(len(row) - 20))
        batch = {"source": np.repeat(source[None], place.multiple, 0), "id": np.zeros(place.multiple, np.uint32)}
        out = np.asarray(self._search(params, batch, place, _output_limit(len(source))))[0]
        traced = self._trace(params, {"source": source[None], "target": out[None]})
        out = out[: int((out != PAD).sum())]  # only now, so that translations of any length are traced by one program
        rows, columns = self.vocabulary.pieces(out), self.vocabulary.pieces(source)
        axes = {"encoder": (columns, columns), "decoder": (rows, ["<s>", *rows[:-1]]), "cross": (rows, columns)}
        named = lambda name: axes["cross" if "cross" in name else name.split("_")[0]]
        found = {name: (trace, *named(name)) for name, trace in traced.items()}
        return dict(sorted(found.items(), key=lambda item: ("cross" not in item[0], item[0])))

    def attention(self, params, model_state, place) -> dict:
        """By layer, what weights can be recomputed from, which queries are tokens, and the keys: the first validation pairs."""
        del model_state
        batch = together(self._tokens("validation"), multiple=place.multiple)
        real = {"encoder": batch["source"] != PAD, "decoder": batch["target"] != PAD}
        source, target = (list(map(self.vocabulary.pieces, batch[side])) for side in ("source", "target"))
        before = [["<s>", *pieces[:-1]] for pieces in target]
        keys = lambda name: before if "decoder" in name and "cross" not in name else source
        return {name: (trace, real[name.split("_")[0]], keys(name)) for name, trace in self._trace(params, place(batch)).items()}

    def forced(self, params, texts: Sequence[list[str]], place) -> Iterator[tuple[np.ndarray, dict]]:
        """Given source and target texts, batch by batch, the number of each row's pair, −1 for none, and its traces."""
        for batch in Batches(Tokens(*map(self.vocabulary.encode, texts)), **self._in_order(place)):
            rows = np.where((batch["source"] != PAD).any(1), batch["id"].astype(int), -1)
            yield rows, self._trace(params, place(batch))

    def figures(self, params, model_state, place, folder: pathlib.Path) -> list[pathlib.Path]:
        """Heatmaps of every attention layer and head on a validation sentence and its translation; cross-attention first."""
        from attention_variants.figures import heatmaps  # matplotlib takes a second to import, and training does not need it

        for name, (trace, queries, keys) in (traces := self.traces(params, model_state, place)).items():
            weights_HQS = np.asarray(trace_weights(trace))[0, :, : len(queries), : len(keys)]
            heatmaps.draw(folder / f"{name}.png", weights_HQS, queries, keys, title=name.replace("_", " "))
        return [folder / f"{name}.png" for name in traces]

    def _two_packed(self) -> tuple[Packed, Packed] | None:
        """Where two tokens belong, if training is packed: what a variant cannot take of that is then refused at the start."""
        token = jnp.ones((1, 2), jnp.int32)
        return (Packed(token, token), Packed(token, token)) if self.config.packed else None

    def _read_split(self, split: str):
        return self._pairs.get(split) or self._pairs.setdefault(split, self.source.read(self.data, split))

    def _tokenise(self, split: str) -> Tokens:
        return Tokens(*map(self.vocabulary.encode, self._read_split(split)[:2]))

    def _leave_out_the_long(self) -> Tokens:
        tokens = self._tokens("train")
        fits = np.flatnonzero(tokens.lengths().max(1) <= self.config.max_length)
        if not len(fits):
            raise InputError(f"every training pair is longer than task.max_length, {self.config.max_length}; expected a larger one")
        return tokens if len(fits) == len(tokens.source) else Tokens(*(Ragged.of(side[i] for i in fits) for side in tokens))

    def _in_order(self, place, beams: int = 1) -> dict:
        """How batches are made that nothing is learned from: in order, in few shapes that other data has too."""
        return dict(
            batch_tokens=max(1, self.config.decode_tokens // beams), seed=None, max_padding=0.3, multiple=place.multiple, round_to=8
        )

    def _search(self, params, batch, place, length: int):
        """Tokens (B, length) of the translations of a batch."""
        if self.config.temperature:
            placed, key = place(batch), jax.random.key(self.seed)
            settings = dict(temperature=self.config.temperature, top_p=self.config.top_p)
            return sample(self.model, params, placed["source"], key, placed["id"], length=length, **settings)
        if self.config.beams == 1:
            return greedy(self.model, params, place(batch)["source"], length=length)
        limit_B = _output_limit((batch["source"] != PAD).sum(1)).astype(np.int32)
        placed = place(batch | {"limit": limit_B})
        settings = dict(beams=self.config.beams, length_penalty=self.config.length_penalty, limit_B=placed["limit"])
        return beam(self.model, params, placed["source"], length=length, **settings)

    def _translate(self, params, source: Ragged, place) -> tuple[list[str], int]:
        """Translations in the order of the sources, and how many reached the output limit."""
        nothing = Ragged.of([[END]] * len(source))
        batches = list(Batches(Tokens(source, nothing), **self._in_order(place, self.config.beams)))
        rows: list = [None] * len(source)
        search = lambda batch: self._search(params, batch, place, _output_limit(batch["source"].shape[1]))
        for batch, out_BT in zip(batches, map(np.asarray, search_all(search, batches)), strict=True):
            for at in np.flatnonzero((batch["source"] != PAD).any(1)):
                row = batch["id"][at]
                rows[row] = out_BT[at][: _output_limit(len(source[row]))]
        return self.vocabulary.decode(rows), sum(END not in row for row in rows)


def _packed(batch) -> tuple[Packed, Packed] | None:
    """Where the tokens of a packed batch belong, source and target."""
    if "source_segment" not in batch:
        return None
    return tuple(Packed(batch[f"{side}_segment"], batch[f"{side}_at"]) for side in ("source", "target"))


def _output_limit(source_length: int) -> int:
    """How many tokens a translation may have; it depends on its own source alone, not on its batch."""
    return 2 * source_length + 10
