"""Laws of regression: predictions are kernel smoothing, no row reads what it may not, and what is saved is what was trained."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import tasks
from attention_variants.data import downloads, tables
from attention_variants.errors import InputError
from attention_variants.models import kernel_smoother
from attention_variants.models.heads import trace_weights
from attention_variants.train import loop, runs
from attention_variants.train import settings as settings_lib
from attention_variants.train.devices import connect
from attention_variants.train.settings import Parallel
from attention_variants.variants import kernel_pooling

SKLEARN = {
    "gaussian": "gaussian",
    "laplace": "exponential",
    "epanechnikov": "epanechnikov",
    "triangular": "linear",
    "cosine": "cosine",
    "boxcar": "tophat",
}


@pytest.fixture(scope="module")
def place():
    return connect(Parallel(devices=1, cache="")).place_whole


def mcycle():
    if not (downloads.folder() / "time_series" / "mcycle.csv").exists():
        pytest.skip("ATTENTION_VARIANTS_DATA has no time_series")
    from attention_variants.data import time_series

    return time_series.table(time_series.Config())


@pytest.mark.parametrize("kernel", SKLEARN)
def test_the_smoother_is_scikit_learns(kernel):
    """On mcycle, predictions and leave-one-out predictions: the ratio of two densities that scikit-learn estimates."""
    from sklearn.neighbors import KernelDensity

    table, width = mcycle(), 2.37
    x, y = table.x_NF, table.y_N
    module = kernel_smoother.build(kernel_smoother.Config(), kernel_pooling.Config(kernel, width), outputs=1)
    grid = np.linspace(x.min(), x.max(), 61)[:, None]
    rows = np.concatenate([x, grid])
    known = np.arange(len(rows)) < len(x)
    values = np.concatenate([y, np.zeros(len(grid))])
    given = jnp.float32(rows[None]), jnp.float32(values[None, :, None]), jnp.asarray(known[None]), None
    found = np.asarray(module.apply({}, *given))[0, :, 0]

    def smoothed(at, x, y):
        density = KernelDensity(bandwidth=width, kernel=SKLEARN[kernel], rtol=1e-9)
        shifted = y - y.min() + 1  # as weights must be positive
        weighted = np.exp(density.fit(x, sample_weight=shifted).score_samples(at)) * shifted.sum()
        return weighted / (np.exp(density.fit(x).score_samples(at)) * len(x)) + y.min() - 1

    def reaches(at, x):
        return kernel in ("gaussian", "laplace") or np.abs(x[:, 0] - at[0, 0]).min() < width

    wanted = [smoothed(at[None], x, y)[0] for at in grid]
    np.testing.assert_allclose(found[len(x) :], wanted, atol=1e-5 * np.abs(y).max())
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        alone = not reaches(x[i : i + 1], x[others])
        left_out = 0.0 if alone else smoothed(x[i : i + 1], x[others], y[others])[0]
        assert found[i] == pytest.approx(left_out, abs=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("data", ["time_series", "textbook"])
def test_a_learned_width_is_as_good_as_the_best_of_fifty(data, configured, tmp_path):
    """By the leave-one-out error of the training rows, which is what it learns from; at most 2 % worse."""
    if data == "time_series":
        mcycle()
    changes = {"run.duration": "200 steps", "run.evaluate": "100 percent"}
    config = configured(f"data={data}", **changes)
    task = tasks.load("regression").Task.new(settings_lib.parse(config))
    learned = loop.train(config, tmp_path / "w", quiet=True).results["test"]["train_rmse"]
    batch = {k: jnp.asarray(v) for k, v in task.batches("train", seed=0)[0].items()}

    def error(width):
        total, weight, *_ = task.loss({"variant": {"log_width": jnp.log(width)}}, {}, batch, None, {})
        return jnp.sqrt(total / weight) * task.scaled.y_scale[0]

    fixed = jax.jit(jax.vmap(error))(jnp.geomspace(0.01, 3.0, 50))
    assert learned <= 1.02 * float(fixed.min())
    assert float(fixed.max()) > 1.2 * learned


@pytest.mark.parametrize("variant", ["standard", "rbf", "kernel_pooling", "implicit_kernel"])
@pytest.mark.parametrize("setting", ["inductive", "transductive"])
def test_what_a_prediction_may_depend_on(variant, setting, configured, place):
    """Never on targets of test rows, or on its own; on features of other test rows in a transductive Transformer alone."""
    model = "kernel_smoother" if variant == "kernel_pooling" else "row_transformer"
    changes = {"task.setting": setting, "data.rows": 60}
    changes |= {"variant.mode": "sampled"} if variant == "implicit_kernel" else {}
    config = configured(f"variant={variant},model={model}", **changes)
    task = tasks.load("regression").Task.new(settings_lib.parse(config))
    params, _ = task.init(jax.random.key(0))
    scaled, rows = task.scaled, task.scaled.split.test

    def predicted(**changes):
        given = scaled._replace(**changes)
        return task._predicted(params, given, given.x[rows], place, split="test")[:2]

    base, base_training = predicted()
    y = scaled.y.copy()
    y[rows] += 7.0
    assert np.array_equal(predicted(y=y)[0], base)
    x = scaled.x.copy()
    x[rows[0]] += 0.5
    moved = predicted(x=x)[0]
    assert not np.array_equal(moved[0], base[0])
    reads = setting == "transductive" and model == "row_transformer"
    assert np.array_equal(moved[1:], base[1:]) != reads
    y = scaled.y.copy()
    y[scaled.split.train[3]] += 7.0
    moved, moved_training = predicted(y=y)
    assert np.array_equal(moved, base) != (model == "kernel_smoother")
    assert np.array_equal(moved_training[3], base_training[3])


@pytest.mark.parametrize("model", ["row_transformer", "kernel_smoother"])
@pytest.mark.parametrize("change", [{"task.setting": "inductive"}, {"task.setting": "transductive"}, {"task.protocol": "authors"}])
def test_nothing_is_trained_on_targets_of_other_rows(change, model, configured):
    """Targets of validation and test rows move neither the loss nor any gradient; that of a training row does."""
    if model == "kernel_smoother" and "task.protocol" in change:
        pytest.skip("the authors have none")
    variant = "kernel_pooling" if model == "kernel_smoother" else "standard"
    task = tasks.load("regression").Task.new(settings_lib.parse(configured(f"variant={variant},model={model}", **change)))
    params, state = task.init(jax.random.key(0))
    batch = task.batches("train", seed=0)[0]
    trained = np.isin(tables.sequence(task.scaled, reads_all=task._reads_all)[1], task.scaled.split.train)
    assert trained.all() == (change == {"task.setting": "inductive"})

    of = jax.jit(jax.value_and_grad(lambda params, batch: task.loss(params, state, batch, None, {})[0]))

    def learned(rows):
        return of(params, batch | {"y": batch["y"] + 7.0 * rows[None, :, None].astype(np.float32)})

    base = learned(np.zeros_like(trained))
    jax.tree.map(np.testing.assert_array_equal, learned(~trained), base)
    assert learned(trained & (np.cumsum(trained) == 3))[0] != base[0]  # of one, or a smoother moves with them


@pytest.mark.parametrize("variant", ["standard", "rbf"])
def test_the_order_of_rows_means_nothing_to_a_transformer(variant, configured, place):
    config = configured(f"variant={variant},model=row_transformer", **{"data.rows": 60})
    task = tasks.load("regression").Task.new(settings_lib.parse(config))
    params, _ = task.init(jax.random.key(0))
    x = np.linspace(-1, 1, 11)[:, None]
    turn = np.random.default_rng(0).permutation(11)
    one, other = (task._predicted(params, task.scaled, rows, place)[0] for rows in (x, x[turn]))
    np.testing.assert_allclose(one[turn], other, atol=1e-5)


def test_the_authors_number_is_the_lowest_of_all_steps(configured, tmp_path):
    """Of the rows that nothing is trained on, before each step and after the last; and the run says what that is."""
    changes = {"run.duration": "4 steps", "run.evaluate": "100 percent", "data.rows": 60, "hypers.learning_rate": 0.05}
    config = configured("protocol=authors,variant=standard", **changes)
    errors = []
    for steps in range(1, 5):
        config.run.duration = f"{steps} steps"
        found = loop.train(config, tmp_path / str(steps), quiet=True).results["test"]
        errors.append(found["rmse"])
        assert found["rmse_best"] <= min(errors) + 1e-6
    assert found["rmse_best"] == pytest.approx(min(errors), rel=1e-5)
    task = tasks.load("regression").Task.new(settings_lib.parse(config))
    assert "which flatters" in task.describe()
    assert task.scaled.split.validation is task.scaled.split.test


def test_lanes_have_splits_of_their_own(configured, tmp_path):
    """Each seed is another split, in one program; and the numbers are those of the run alone."""
    configs = [configured("", **{"run.seed": seed, "data.rows": 60}) for seed in range(3)]
    workdirs = [tmp_path / str(seed) for seed in range(3)]
    together = loop.train_together(configs, workdirs, quiet=True)
    found = [result.results["test"]["rmse"] for result in together]
    assert len(set(found)) == 3
    alone = loop.train(configs[2], tmp_path / "alone", quiet=True)
    assert alone.results["test"]["rmse"] == pytest.approx(found[2], rel=1e-4)


@pytest.mark.parametrize("pieces", ["", "variant=rbf", "protocol=authors,variant=standard"])
def test_what_is_drawn_is_what_was_trained(pieces, configured, place):
    """The weights of the rows that a picture shows, over all rows that are read, make the model's own predictions of them."""
    changes = {"data.rows": 60} if pieces else {"data.rows": 60, "variant.rule": "nearest", "variant.width": 1.0}
    task = tasks.load("regression").Task.new(settings_lib.parse(configured(pieces, **changes)))
    (params, _), scaled, train = task.init(jax.random.key(0)), task.scaled, task.scaled.split.train
    (trace, queries, keys), *_ = task.traces(params, {}, place).values()
    weights_QS = np.asarray(trace_weights(trace, rows=(0, 24)))[0, 0]
    np.testing.assert_allclose(weights_QS.sum(-1), 1, rtol=1e-5)
    assert weights_QS.shape == (24, 60 if "authors" in pieces else len(train))
    assert queries == keys == sorted(queries, key=float)
    if not pieces:  # rows of the textbook's table are in the order of their feature
        order = np.linspace(0, len(train) - 1, 24).round().astype(int)
        y = scaled.y[train][np.concatenate([order, np.delete(np.arange(len(train)), order)]), 0]
        _, of_training, _ = task._predicted(params, scaled, scaled.x[scaled.split.test], place, split="test")
        np.testing.assert_allclose(weights_QS @ y, of_training[order, 0], rtol=1e-4, atol=1e-4)


def test_a_rule_in_the_config_string_is_the_whole_width(configured):
    variant = settings_lib.parse(configured("rule=silverman")).variant
    assert (variant.rule, variant.width, variant.learn_width) == ("silverman", 1.0, False)


@pytest.mark.parametrize("setting", ["inductive", "transductive"])
def test_training_rows_are_judged_without_themselves(setting, configured, place):
    """By any setting, when they are asked for as a split; and all of a table is in [−1, 1] for the authors."""
    config = configured("", **{"data.rows": 60, "variant.width": 0.005, "variant.learn_width": False, "task.setting": setting})
    task = tasks.load("regression").Task.new(settings_lib.parse(config))
    numbers, _ = task.evaluate(*task.init(jax.random.key(0)), "train", place)
    assert numbers["rmse"] == numbers["train_rmse"] > 0.3
    authors = tasks.load("regression").Task.new(settings_lib.parse(configured("protocol=authors")))
    assert (authors.scaled.x.min(), authors.scaled.x.max()) == (-1, 1)


def test_a_trained_split_is_the_split_for_good(configured, tmp_path):
    """Rows that were trained on are never asked for as test rows."""
    loop.train(configured("", **{"data.rows": 60}), tmp_path / "w", quiet=True)
    for change, was in (("run.seed=1", 0), ("task.test=0.5", 0.1), ("task.protocol=authors", "clean")):
        with pytest.raises(InputError, match=f"--change={change}, which the run was trained with as {was}"):
            runs.Loaded(tmp_path / "w", print, [change])
    assert runs.Loaded(tmp_path / "w", print, ["model.route=blockwise", "run.seed=0"]).evaluate("test")


@pytest.mark.parametrize("model", ["kernel_smoother", "row_transformer"])
def test_classes_are_learned_saved_and_asked_for(model, configured, tmp_path):
    """Two half moons, told apart by either model; a workdir is all that its answers need."""
    draw = np.random.default_rng(0)
    angle, side = draw.uniform(0, np.pi, 150), draw.integers(0, 2, 150)
    x = np.stack([np.cos(angle) + side, np.sin(angle) * (1 - 2 * side) + side / 3], 1) + 0.1 * draw.normal(size=(150, 2))
    lines = [f"{a:.5f},{b:.5f},{('up', 'down')[s]}" for (a, b), s in zip(x, side, strict=True)]
    file = tmp_path / "moons.csv"
    file.write_text("a,b,moon\n" + "\n".join(lines) + "\n")
    changes = {"data.path": str(file), "data.target": "moon", "data.classes": True, "run.duration": "60 steps"}
    config = configured(
        f"data=csv_file,model={model},variant={'kernel_pooling' if model == 'kernel_smoother' else 'rbf'}", **changes
    )
    found = loop.train(config, tmp_path / "w", quiet=True).results
    assert found["metric"] == "accuracy"
    assert found["test"]["accuracy"] > 0.85
    file.unlink()
    loaded = runs.Loaded(tmp_path / "w", tell=print)
    assert loaded.predict(["0.0,1.0", "1.0,-0.6"])[0] == ["up", "down"]
    wanted = json.loads((tmp_path / "w" / "results.json").read_text())["test"]
    assert loaded.evaluate("test") == pytest.approx(wanted, rel=1e-5)
    file.write_text("a,b,moon\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match="protocol is authors, which is of numbers"):
        loop.train(configured("data=csv_file,protocol=authors", **changes), tmp_path / "other", quiet=True)


@pytest.mark.parametrize("rule", ["none", "abramson", "nearest"])
def test_a_row_that_nothing_is_near_gets_the_mean_and_a_remark(rule, configured, tmp_path):
    """Far away, whatever else is asked for beside it; and what is reported knows of rows without neighbours."""
    width = 0.05 if rule == "none" else 1.0
    changes = {"variant.kernel": "boxcar", "variant.width": width, "variant.learn_width": False, "variant.rule": rule}
    loop.train(configured("", **changes, **{"data.rows": 60}), tmp_path / "w", quiet=True)
    loaded = runs.Loaded(tmp_path / "w", tell=print)
    near = loaded.predict(["2.5"])
    answers, remarks = loaded.predict(["2.5", "3000"])
    assert answers[0] == near[0][0]
    scaled = loaded.task.scaled
    assert float(answers[1]) == pytest.approx(loaded.task.table.y_N[scaled.split.train].mean(), rel=1e-4)
    assert f"(first: line {2 - len(near[1])}); the answer there is the mean of all training rows" in remarks[0]
    numbers = loaded.evaluate("test")
    assert 1 <= numbers["effective_keys"] <= 60
    x = loaded.task.scaled.x[:, 0]
    distance = abs(x[scaled.split.test][:, None] - x[scaled.split.train])
    assert rule != "none" or numbers["without_neighbours"] == np.mean((distance >= 0.05).all(1)) > 0
    curve = loaded.task._fit(loaded.params, scaled, loaded.place)
    assert np.isnan(curve[1]).any() == np.isnan(curve[2]).any() == (rule == "none")


@pytest.mark.parametrize("kernel", ["gaussian", "triangular", "constant"])
def test_a_kernel_trains_and_draws(kernel, configured, tmp_path):
    learn = kernel not in ("boxcar", "constant")
    changes = {"variant.kernel": kernel, "variant.learn_width": learn, "data.rows": 60}
    found = loop.train(configured("", **changes), tmp_path / "w", quiet=True).results
    assert np.isfinite(found["test"]["rmse"])
    assert found["figures"] == ["figures/fit.png", "figures/smoother.png"]
    assert 1 <= found["test"]["effective_keys"] <= 60
