"""Regression and classification of tables: a number, or a class, from the other columns of a row.

Two protocols. "clean" (default): training, validation and test rows by seed, columns scaled by the training rows alone, the best
checkpoint chosen on the validation rows, the test rows touched once. "authors" (Song et al. 2021, as their code has it): columns
scaled to [−1, 1] by all rows, which are one sequence, 90 % of them for training, and the number that counts is the lowest error on
the test rows over all epochs, which flatters; the output says so.
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
from attention_variants.models import layers
from attention_variants.models.heads import check_route, noise_of, sown_losses, trace_weights

INPUTS = ("x", "y", "known", "read")  # of a model, in this order
FLOOR = 1e-6  # of the probability of a class, where no row nearby has it
SHOWN, READ, GRID = 24, 512, 200  # rows in a heatmap, queries whose weights are summed up, points of a fit


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
    fixed = ("run.seed", "task.protocol", "task.validation", "task.test")

    def __init__(self, settings, table: Table):
        for section, key in (("parallel", "devices"), ("optimizer", "accumulate")):
            if (value := getattr(getattr(settings, section), key)) != 1:
                raise InputError(f"{section}.{key} is {value}; a table is one sequence, expected 1")
        if table.classes and settings.task.protocol == "authors":
            raise InputError("task.protocol is authors, which is of numbers, and the target is a class; expected clean")
        self.config, self.seed, self.table = settings.task, settings.run.seed, table
        self._reads_all = settings.task.protocol == "authors" or settings.task.setting == "transductive"
        self._truth = getattr(sources.load(settings.name("data"), sources.TABLES), "curve", None)
        self.metric, self.mode = ("accuracy", "max") if table.classes else ("rmse", "min")
        self.width = getattr(settings.model, "width", 1)
        build = models.load(settings.name("model")).build
        self.model = build(settings.model, settings.variant, outputs=len(table.classes) or 1)
        self._of_seed = functools.cache(self._scaled)
        self._trace = jax.jit(functools.partial(self.model.apply, mutable=["trace"]))
        self._of_seed(self.seed)

    @classmethod
    def new(cls, settings) -> "Task":
        """A task whose table is read from its source. Raises InputError for bad data before anything is written."""
        task = cls(settings, sources.load(settings.name("data"), sources.TABLES).table(settings.data))
        if settings.model.route in ("fused", "linear"):
            check_route(task.model, settings.hypers.attention_dropout, *task._two_rows())
        return task

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
        said = f"{table.target!r}, {what}, from {len(table.features)} feature{'s' * (len(table.features) > 1)}; {rows}"
        if self.config.protocol == "authors":
            said += "; authors' protocol: test rows are those for validation too, and rmse_best is chosen on them, which flatters"
        return said

    def batches(self, split: str, *, seed: int | None, multiple: int = 1, process=(0, 1)) -> Whole:
        """One sequence of a split's rows, whatever `multiple` and `process` are."""
        del split, multiple, process
        made = lambda seed: tables.training(self._of_seed(seed), reads_all=self._reads_all)
        return Whole(made, rows=self.config.rows, seed=seed)

    def tokens(self, batch) -> int:
        """How many rows a batch has."""
        return int(batch["x"].shape[1])

    def init(self, key):
        """(params, model_state): float32 parameters; the lowest error on the test rows so far, for the authors' protocol."""
        state = {"rmse_best": jnp.float32(jnp.inf)} if self.config.protocol == "authors" else {}
        return self.model.init(key, *self._two_rows()).get("params", {}), state

    def loss(self, params, model_state, batch, key, hypers):
        """Squared error of the scaled target, or cross-entropy in nats, summed over training rows.

        What variants add is in it, but not in the metric `loss`; it is one of its own, `added`.
        """
        out_BNO, sown = self._forward(params, batch, key, hypers)
        if self.config.protocol == "authors":  # of the parameters before this step, without dropout where there is any
            judged = self._loss(self._forward(params, batch, None, {})[0], batch["y"])
            rmse = jnp.sqrt((judged * batch["tested"]).sum() / batch["tested"].sum()) * batch["scale"][0, 0]
            model_state = {"rmse_best": jnp.minimum(model_state["rmse_best"], jax.lax.stop_gradient(rmse))}
        weight, added = batch["trained"].sum(), sown_losses(sown, batch["trained"].any(1))
        total = (self._loss(out_BNO, batch["y"]) * batch["trained"]).sum()
        return total + added, weight, {"loss": (total, weight), "added": (added, weight)} if sown else {}, model_state

    def evaluate(self, params, model_state, split, place) -> tuple[dict, list[dict[str, str]]]:
        """The metric and its kin on a split, in units of the target; of the training rows each is predicted from the others.

        `train_rmse` is of those; `without_neighbours` the share of rows with no training row in reach of the kernel.
        """
        scaled, table = self.scaled, self.table
        rows, train = getattr(scaled.split, split), scaled.split.train
        out_NO, of_training_NO, alone_N = self._predicted(params, scaled, scaled.x[rows], place, split=split)
        numbers = {"loss": float(np.mean(self._loss(jnp.asarray(out_NO), jnp.asarray(scaled.y[rows]))))}
        if table.classes:
            numbers["accuracy"] = float(np.mean(out_NO.argmax(1) == table.y_N[rows]))
            references = [table.classes[int(c)] for c in table.y_N[rows]]
        else:
            errors, known = scaled.target(out_NO) - table.y_N[rows], scaled.target(of_training_NO) - table.y_N[train]
            spread = np.mean(np.square(table.y_N[rows] - table.y_N[train].mean()))
            numbers |= {"rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(abs(errors)))}
            numbers |= {"r2": float(1 - np.mean(errors**2) / spread), "train_rmse": float(np.sqrt(np.mean(known**2)))}
            references = [f"{y:.6g}" for y in table.y_N[rows]]
        if hasattr(self.model, "smooths"):
            numbers["without_neighbours"] = float(np.mean(alone_N))
        if split == "test":
            numbers["effective_keys"] = self._effective_keys(params, model_state, place)
        if "rmse_best" in model_state:
            numbers["rmse_best"] = min(float(model_state["rmse_best"]), numbers["rmse"])
        asked = [", ".join(f"{name} {value:.6g}" for name, value in zip(table.features, table.x_NF[i], strict=True)) for i in rows]
        columns = zip(asked, references, self._answers(out_NO), strict=True)
        return numbers, [dict(source=s, reference=r, answer=a) for s, r, a in columns]

    def predict(self, params, model_state, lines, place) -> tuple[list[str], list[str]]:
        """One answer per line of features, separated by commas and in the order of the table."""
        del model_state
        x_NF, remarks = (tables.numbers(lines, self.table.features) - self.scaled.x_mean) / self.scaled.x_scale, []
        out_NO, _, alone_N = self._predicted(params, self.scaled, x_NF, place)
        if alone_N.any():
            what = "most frequent class" if self.table.classes else "mean"
            many = f"{alone_N.sum()} of {len(lines)} lines have no training row in the kernel's reach"
            remarks.append(f"{many} (first: line {alone_N.argmax() + 1}); the answer there is the {what} of all training rows")
        return self._answers(out_NO), remarks

    def _answers(self, out_NO) -> list[str]:
        classes = self.table.classes
        return [classes[c] for c in out_NO.argmax(1)] if classes else [f"{y:.6g}" for y in self.scaled.target(out_NO)]

    def _effective_keys(self, params, model_state, place) -> float:
        """1 / Σ_j w_ij², mean over queries that read any key, heads and layers: how many keys a training row reads."""
        traces = self.traces(params, model_state, place, most=READ).values()
        squares = np.stack([np.square(trace_weights(trace, rows=(0, len(rows)))).sum(-1) for trace, rows, _ in traces])
        return float(np.mean(1 / squares[squares > 0])) if squares.any() else 0.0

    def traces(self, params, model_state, place, most: int = SHOWN) -> dict:
        """By layer, what weights can be recomputed from, of all rows that are read; and the names of the first ones.

        Those are training rows in the order of their features, all or evenly spaced ones, at most so many.
        """
        del model_state
        scaled, train = self.scaled, self.scaled.split.train
        ordered = train[np.lexsort(self.table.x_NF[train].T[::-1])]
        first = ordered[np.linspace(0, len(train) - 1, min(most, len(train))).round().astype(int)]
        names = [f"{self.table.x_NF[i, 0]:.4g}" for i in first]
        batch, rows = tables.sequence(scaled, reads_all=self._reads_all)
        order = np.concatenate([np.searchsorted(rows, first), np.flatnonzero(~np.isin(rows, first))])
        _, traced = self._traced(params, {name: array[order] for name, array in batch.items()}, place)
        found = {"smoother": traced} if "score" in traced else layers.traces(traced)
        return {name: (trace, names, names) for name, trace in sorted(found.items())}

    def figures(self, params, model_state, place, folder: pathlib.Path) -> list[pathlib.Path]:
        """The fit, where a number is predicted from one feature; then the weights of every layer and head among training rows."""
        from attention_variants.figures import heatmaps, smoothing  # matplotlib takes a second to import

        paths, scaled, table = [], self.scaled, self.table
        if len(table.features) == 1 and not table.classes:
            paths.append(folder / "fit.png")
            given = table.x_NF[scaled.split.train, 0], table.y_N[scaled.split.train], *self._fit(params, scaled, place)
            smoothing.fit(paths[0], *given, names=(table.features[0], table.target), truth=self._truth)
        for name, (trace, queries, keys) in self.traces(params, model_state, place).items():
            paths.append(folder / f"{name}.png")
            weights_HQS = np.asarray(trace_weights(trace, rows=(0, len(queries))))[0, :, :, : len(keys)]
            title = f"{name}: {len(keys)} of {len(scaled.split.train)} training rows, by {table.features[0]}"
            heatmaps.draw(paths[-1], weights_HQS, queries, keys, title=title)
        return paths

    def _fit(self, params, scaled: Scaled, place):
        """(x, fit, low, high) along the one feature, in its units; low and high are None where targets are not smoothed.

        The band is ± 1.96 √(Σ_j w_ij² r_j²), r_j the leave-one-out residual of row j: of the fit, not of new rows. Where no row is
        in the kernel's reach there is no fit, NaN.
        """
        rows, x_NF = scaled.split.train, np.linspace(scaled.x.min(), scaled.x.max(), GRID)[:, None]
        batch, places = tables.sequence(scaled, x_NF, reads_all=self._reads_all)
        out_NO, traced = self._traced(params, batch, place)
        x_N, y_N = x_NF[:, 0] * scaled.x_scale[0] + scaled.x_mean[0], out_NO[places < 0, 0]
        if "score" not in traced:
            return x_N, scaled.target(y_N[:, None]), None, None
        weights_QS = np.asarray(trace_weights(traced, rows=(len(batch["x"]) - GRID, GRID)))[0, 0]
        y_N = np.where(weights_QS.any(1), y_N, np.nan)
        residual_N = np.zeros(weights_QS.shape[1])
        residual_N[batch["known"]] = out_NO[batch["known"], 0] - scaled.y[rows, 0]
        reach_N = 1.96 * np.sqrt(np.square(weights_QS) @ np.square(residual_N))
        return x_N, *(scaled.target(y_N[:, None]) for y_N in (y_N, y_N - reach_N, y_N + reach_N))

    def _two_rows(self) -> tuple[jax.Array, ...]:
        x, y = (jnp.zeros((1, 2, array.shape[1])) for array in (self.scaled.x, self.scaled.y))
        return x, y, jnp.ones((1, 2), bool), jnp.ones((1, 2), bool)

    def _forward(self, params, batch, key, hypers):
        """Predictions (1, N, O) of all rows of a batch, and what the variant has sown; without a key, no dropout."""
        (noise, rngs), given = noise_of(key, hypers, batch["id"]), (batch[name] for name in INPUTS)
        return self.model.apply({"params": params}, *given, noise, rngs=rngs, mutable=["losses"])

    def _loss(self, out_BNO, y_BNO):
        """Of each row: the squared error, or −log of the probability of its class; float32."""
        out_BNO = out_BNO.astype(jnp.float32)
        if not self.table.classes:
            return jnp.square(out_BNO - y_BNO).sum(-1)
        if hasattr(self.model, "smooths"):  # probabilities already
            return -jnp.log(jnp.maximum((out_BNO * y_BNO).sum(-1), FLOOR))
        return -(jax.nn.log_softmax(out_BNO) * y_BNO).sum(-1)

    @property
    def scaled(self) -> Scaled:
        """The split of this run, and its columns as they are learned from."""
        return self._of_seed(self.seed)

    def _scaled(self, seed: int) -> Scaled:
        """The split of a seed, and columns as the protocol scales them."""
        authors = self.config.protocol == "authors"
        split = tables.split(self.table, seed, 0.0 if authors else self.config.validation, self.config.test)
        return tables.scaled(self.table, split._replace(validation=split.test) if authors else split, to_range=authors)

    def _predicted(self, params, scaled: Scaled, x_NF, place, split: str | None = None):
        """Predictions (N, O) of rows, those of the training rows, and (N,) which of the former have no known row in reach.

        Where that is so, the prediction is the mean of the training targets. `split`: of which these are the rows, if of any.
        """
        there = split is not None and (self._reads_all or split == "train")  # they are read already
        batch, rows = tables.sequence(scaled, () if there else x_NF, reads_all=self._reads_all)
        asked = np.isin(rows, getattr(scaled.split, split)) if there else rows < 0
        out_NO, traced = self._traced(params, batch, place)
        alone_N = np.isneginf(traced["log_normaliser_BHQ"])[0, 0] if "score" in traced else np.zeros(len(rows), bool)
        out_NO = np.where(alone_N[:, None], scaled.y[scaled.split.train].mean(0), out_NO)
        return out_NO[asked], out_NO[batch["known"]], alone_N[asked]

    def _traced(self, params, batch: dict[str, np.ndarray], place) -> tuple[np.ndarray, dict]:
        """(N, O) of a sequence, in float64, and its trace."""
        # As often as there are devices that want rows of their own.
        placed = place({name: np.repeat(array[None], place.multiple, 0) for name, array in batch.items()})
        out_BNO, traced = self._trace({"params": params}, *(placed[name] for name in INPUTS))
        return np.asarray(out_BNO, np.float64)[0], traced["trace"]
