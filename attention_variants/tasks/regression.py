"""Regression and classification of tables: a number, or a class, from the other columns of a row.

Two protocols. "clean" (default): training, validation and test rows by seed, columns scaled by the training rows alone, the best
checkpoint chosen on the validation rows, the test rows touched once. "authors" (Song et al. 2021, as their code has it): all rows
are one sequence, 90 % for training, and the number that counts is the lowest error on the test rows over all epochs, which
flatters; the output says so.
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
from attention_variants.data import tables
from attention_variants.data.tables import Scaled, Table, Whole
from attention_variants.errors import InputError
from attention_variants.models.heads import Noise, trace_weights

FLOOR = 1e-6  # of the probability of a class, where no row nearby has it
SHOWN, READ, GRID = 24, 512, 200  # rows in a heatmap, rows whose weights are summed up, points of a fit


@dataclasses.dataclass(frozen=True)
class Config:
    """How a table is learned from.

    `protocol`: see above. `setting`: of "clean", whether models that read rows without their targets see only training rows
    ("inductive"), or in training already those that they will be asked for ("transductive"). `validation`: share of the rows that
    are not for test; `test`: share of all rows, where the source has no standard splits. `rows`: of the training rows, those in a
    training step, by seed; 0 is all.
    """

    protocol: Literal["clean", "authors"] = "clean"
    setting: Literal["inductive", "transductive"] = "inductive"
    validation: float = 0.1
    test: float = 0.1
    rows: int = 0

    def __post_init__(self):
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"task.{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if self.rows < 0:
            raise InputError(f"task.rows is {self.rows}; expected 0 for all, or how many")
        if self.rows and (self.protocol == "authors" or self.setting == "transductive"):
            raise InputError(f"task.rows is {self.rows} where all rows are one sequence (authors, transductive); expected 0")


@dataclasses.dataclass(frozen=True)
class Hypers(tasks.Hypers):
    """Rates of dropout, each in [0, 1)."""

    SWITCHES = RATES = ("dropout", "attention_dropout")

    dropout: float = 0.0
    attention_dropout: float = 0.0


class Task:
    """The regression task, see `tasks`."""

    splits = ("train", "validation", "test")

    def __init__(self, settings, table: Table):
        if settings.parallel.devices != 1:
            raise InputError(f"parallel.devices is {settings.parallel.devices}; a table is one sequence, expected 1")
        self.config, self.seed, self.table = settings.task, settings.run.seed, table
        self.metric, self.mode = ("accuracy", "max") if table.classes else ("rmse", "min")
        self.width = getattr(settings.model, "width", 1)
        outputs = len(table.classes) or 1
        self.model = models.load(settings.name("model")).build(settings.model, settings.variant, outputs)
        self._of_seed = functools.cache(self._scaled)
        self._apply = jax.jit(lambda params, batch: self._forward(params, batch, None, {}))
        self._trace = jax.jit(functools.partial(self.model.apply, mutable=["trace"]))
        self._of_seed(self.seed)

    @classmethod
    def new(cls, settings) -> "Task":
        """A task whose table is read from its source. Raises InputError for bad data before anything is written."""
        return cls(settings, sources.load(settings.name("data"), sources.TABLES).table(settings.data))

    @classmethod
    def saved(cls, settings, workdir: pathlib.Path) -> "Task":
        """The task of a workdir, with the table saved there."""
        return cls(settings, Table.load(workdir / "table.npz"))

    def save(self, workdir: pathlib.Path) -> None:
        self.table.save(workdir / "table.npz")

    def seeded(self, seed: int) -> "Task":
        """The same task of a run with another seed, so with another split; table and model are shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def describe(self) -> str:
        """One line about the data, and about the protocol where it flatters."""
        split, table = self.scaled.split, self.table
        what = f"a class of {len(table.classes)}" if table.classes else "a number"
        rows = f"{len(split.train):,} rows for training, {len(split.validation):,} validation, {len(split.test):,} test"
        said = f"{table.target}, {what}, from {len(table.features)} feature(s); {rows}"
        if self.config.protocol == "authors":
            said += "; authors' protocol: test rows are those for validation too, and rmse_best is chosen on them, which flatters"
        return said

    def batches(self, split: str, *, seed: int | None, multiple: int = 1, process=(0, 1)) -> Whole:
        """One sequence of a split's rows, whatever `multiple` and `process` are."""
        del split, multiple, process
        return Whole(self._training, rows=self.config.rows, seed=seed)

    def tokens(self, batch) -> int:
        """How many rows a batch has."""
        return int(batch["x"].shape[1])

    def init(self, key):
        """(params, model_state): float32 parameters; the lowest error on the test rows so far, for the authors' protocol."""
        x, y, known = jnp.zeros((1, 2, self.scaled.x.shape[1])), jnp.zeros((1, 2, self.scaled.y.shape[1])), jnp.ones((1, 2), bool)
        state = {"rmse_best": jnp.float32(jnp.inf)} if self.config.protocol == "authors" else {}
        return self.model.init(key, x, y, known, known).get("params", {}), state

    def loss(self, params, model_state, batch, key, hypers):
        """Half-way to the metric: squared error of the scaled target, or the cross-entropy in nats, summed over training rows."""
        out_BNO = self._forward(params, batch, key, hypers)
        loss_BN = self._loss(out_BNO, batch["y"])
        if self.config.protocol == "authors":  # of the parameters before this step, without dropout where there is any
            judged = self._loss(out_BNO if key is None else self._forward(params, batch, None, {}), batch["y"])
            rmse = jnp.sqrt((judged * batch["tested"]).sum() / batch["tested"].sum()) * batch["scale"][0, 0]
            model_state = {"rmse_best": jnp.minimum(model_state["rmse_best"], jax.lax.stop_gradient(rmse))}
        return (loss_BN * batch["trained"]).sum(), batch["trained"].sum(), {}, model_state

    def evaluate(self, params, model_state, split, place) -> tuple[dict, list[dict[str, str]]]:
        """The metric and its kin on a split, in units of the target; of the training rows each is predicted from the others."""
        scaled, table = self.scaled, self.table
        rows = getattr(scaled.split, split)
        out_NO, of_training_NO = self._predicted(params, scaled, scaled.x[rows], place, split=split)
        loss = float(np.mean(np.asarray(self._loss(jnp.asarray(out_NO), jnp.asarray(scaled.y[rows])))))
        if table.classes:
            chosen = out_NO.argmax(1)
            numbers = {"loss": loss, "accuracy": float(np.mean(chosen == table.y_N[rows]))}
            answers = [table.classes[c] for c in chosen]
            references = [table.classes[int(c)] for c in table.y_N[rows]]
        else:
            predicted = out_NO[:, 0] * scaled.y_scale[0] + scaled.y_mean[0]
            errors = predicted - table.y_N[rows]
            known = of_training_NO[:, 0] * scaled.y_scale[0] + scaled.y_mean[0] - table.y_N[scaled.split.train]
            spread = np.mean(np.square(table.y_N[rows] - table.y_N[scaled.split.train].mean()))
            numbers = {"loss": loss, "rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(abs(errors)))}
            numbers |= {"r2": float(1 - np.mean(errors**2) / spread), "train_rmse": float(np.sqrt(np.mean(known**2)))}
            answers, references = [f"{y:.6g}" for y in predicted], [f"{y:.6g}" for y in table.y_N[rows]]
        if split == "test":
            numbers["effective_keys"] = self._effective_keys(params, model_state, place)
        if "rmse_best" in model_state:
            numbers["rmse_best"] = min(float(model_state["rmse_best"]), numbers["rmse"])
        asked = [", ".join(f"{name} {value:.6g}" for name, value in zip(table.features, table.x_NF[i], strict=True)) for i in rows]
        return numbers, [dict(source=s, reference=r, answer=a) for s, r, a in zip(asked, references, answers, strict=True)]

    def predict(self, params, model_state, lines, place) -> tuple[list[str], list[str]]:
        """One answer per line of features, separated by commas and in the order of the table; no remarks."""
        del model_state
        scaled, table = self.scaled, self.table
        x_NF = tables.numbers(lines, table.features)
        out_NO, _ = self._predicted(params, scaled, (x_NF - scaled.x_mean) / scaled.x_scale, place)
        if table.classes:
            return [table.classes[c] for c in out_NO.argmax(1)], []
        return [f"{y:.6g}" for y in out_NO[:, 0] * scaled.y_scale[0] + scaled.y_mean[0]], []

    def _effective_keys(self, params, model_state, place) -> float:
        """1 / Σ_j w_ij², mean over queries, heads and layers, of training rows among themselves: how many keys a query reads."""
        layers = [trace_weights(trace) for trace, *_ in self.traces(params, model_state, place, most=READ).values()]
        return float(np.mean([1 / jnp.maximum(jnp.square(weights_BHQS).sum(-1), 1e-9) for weights_BHQS in layers]))

    def traces(self, params, model_state, place, most: int = SHOWN) -> dict:
        """By layer, what weights can be recomputed from, and the names of queries and keys: at most so many training rows."""
        del model_state
        scaled = self.scaled
        rows = scaled.split.train
        rows = rows[np.lexsort(self.table.x_NF[rows].T[::-1])]
        rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]
        names = [f"{self.table.x_NF[i, 0]:.4g}" for i in rows]
        all_ = np.ones(len(rows), bool)
        batch = _placed(tables.rows(scaled.x[rows], scaled.y[rows], all_, all_), place)
        inputs = batch["x"], batch["y"], batch["known"], batch["read"]
        traced = self._trace({"params": params}, *inputs)[1]["trace"]
        layers = {"smoother": traced} if "score" in traced else {k: v["self_attention"] for k, v in sorted(traced.items())}
        return {name: (trace, names, names) for name, trace in layers.items()}

    def figures(self, params, model_state, place, folder: pathlib.Path) -> list[pathlib.Path]:
        """The fit, where a number is predicted from one feature; then the weights of every layer and head among training rows."""
        from attention_variants.figures import heatmaps, smoothing  # matplotlib takes a second to import

        paths, scaled, table = [], self.scaled, self.table
        if len(table.features) == 1 and not table.classes:
            paths.append(folder / "fit.png")
            rows, names = scaled.split.train, (table.features[0], table.target)
            curves = {type(self.model).__name__: self._fit(params, scaled, place)}
            smoothing.fits(paths[0], table.x_NF[rows, 0], table.y_N[rows], curves, names=names, title="training rows and fit")
        for name, (trace, queries, keys) in self.traces(params, model_state, place).items():
            paths.append(folder / f"{name}.png")
            heatmaps.draw(
                paths[-1], np.asarray(trace_weights(trace))[0], queries, keys, title=f"{name}: rows by {table.features[0]}"
            )
        return paths

    def _fit(self, params, scaled: Scaled, place):
        """(x, fit, low, high) along the one feature, in its units; low and high are None where targets are not smoothed.

        The band is ± 1.96 √(Σ_j w_ij² r_j²), r_j the leave-one-out residual of row j: of the fit, not of new rows.
        """
        rows, x_NF = scaled.split.train, np.linspace(scaled.x.min(), scaled.x.max(), GRID)[:, None]
        batch, asked, of_training = self._asked(scaled, x_NF)
        inputs = [_placed(batch, place)[name] for name in ("x", "y", "known", "read")]
        out, traced = self._trace({"params": params}, *inputs)
        back = lambda y: y * scaled.y_scale[0] + scaled.y_mean[0]
        x_N, y_N = x_NF[:, 0] * scaled.x_scale[0] + scaled.x_mean[0], np.asarray(out)[0, asked, 0]
        if "score" not in traced["trace"]:
            return x_N, back(y_N), None, None
        weights_QS = np.asarray(trace_weights(traced["trace"], rows=(len(batch["x"]) - GRID, GRID)))[0, 0]
        residual_N = np.zeros(weights_QS.shape[1])
        residual_N[of_training] = np.asarray(out)[0, of_training, 0] - scaled.y[rows, 0]
        reach_N = 1.96 * np.sqrt(np.square(weights_QS) @ np.square(residual_N))
        return x_N, back(y_N), back(y_N - reach_N), back(y_N + reach_N)

    def _forward(self, params, batch, key, hypers):
        """Predictions (1, N, O) of all rows of a batch; without a key, no dropout."""
        noise, rngs = None, None
        if key is not None:
            noise, rngs = Noise(hypers["dropout"], hypers["attention_dropout"], batch["id"]), {"dropout": key}
        inputs = batch["x"], batch["y"], batch["known"], batch["read"], noise
        return self.model.apply({"params": params}, *inputs, rngs=rngs)

    def _loss(self, out_BNO, y_BNO):
        """Of each row: the squared error, or −log of the probability of its class; float32."""
        out_BNO = out_BNO.astype(jnp.float32)
        if not self.table.classes:
            return jnp.square(out_BNO - y_BNO).sum(-1)
        if hasattr(self.model, "smooths"):  # probabilities already
            return -jnp.log(jnp.maximum((out_BNO * y_BNO).sum(-1), FLOOR))
        return -(jax.nn.log_softmax(out_BNO) * y_BNO).sum(-1)

    @property
    def _reads_all(self) -> bool:
        return self.config.protocol == "authors" or self.config.setting == "transductive"

    @property
    def scaled(self) -> Scaled:
        """The split of this run, and its columns as they are learned from."""
        return self._of_seed(self.seed)

    def _scaled(self, seed: int) -> Scaled:
        """The split of a seed, and columns scaled by its training rows; the authors' sets are scaled already."""
        authors = self.config.protocol == "authors"
        split = tables.split(self.table, seed, 0.0 if authors else self.config.validation, self.config.test)
        return tables.scaled(self.table, split._replace(validation=split.test) if authors else split, as_it_is=authors)

    def _training(self, seed: int) -> dict[str, np.ndarray]:
        """What a training sequence is made of, by row."""
        scaled = self._of_seed(seed)
        rows = np.arange(len(scaled.x)) if self._reads_all else scaled.split.train
        known = np.isin(rows, scaled.split.train)
        more = {"trained": known.astype(np.float32), "tested": np.isin(rows, scaled.split.test).astype(np.float32)}
        more["scale"] = np.full(len(rows), scaled.y_scale[0], np.float32)
        return tables.rows(scaled.x[rows], scaled.y[rows], known, np.ones(len(rows), bool)) | more

    def _asked(self, scaled: Scaled, x_NF) -> tuple[dict, slice, np.ndarray]:
        """(a batch of rows that may be read and of those that are asked for, places of the latter, and of the training rows)."""
        rows = np.arange(len(scaled.x)) if self._reads_all else scaled.split.train
        n, known = len(rows), np.isin(rows, scaled.split.train)
        x = np.concatenate([scaled.x[rows], x_NF])
        y = np.concatenate([scaled.y[rows], np.zeros((len(x_NF), scaled.y.shape[1]))])
        own = np.zeros(len(x_NF), bool)
        made = tables.rows(x, y, np.concatenate([known, own]), np.concatenate([np.ones(n, bool), own | self._reads_all]))
        return made, slice(n, None), np.flatnonzero(known)

    def _predicted(self, params, scaled: Scaled, x_NF, place, split: str | None = None):
        """Predictions (N, O) of rows, and of the training rows; `split`: of which these are the rows, which may be read already."""
        if split is None or not self._reads_all:
            batch, asked, of_training = self._asked(scaled, x_NF)
        else:
            batch, _, of_training = self._asked(scaled, x_NF[:0])
            asked = getattr(scaled.split, split)
        out_NO = np.asarray(self._apply(params, _placed(batch, place)), np.float64)[0]
        return out_NO[asked], out_NO[of_training]


def _placed(arrays: dict[str, np.ndarray], place) -> dict:
    """One sequence, as often as there are devices that want rows of their own."""
    return place({name: np.repeat(array[None], place.multiple, 0) for name, array in arrays.items()})
