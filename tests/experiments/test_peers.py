"""What stands beside our runs in a table is asked of the same rows, in the same units."""

import json

import numpy as np
import pytest

from attention_variants import tasks
from attention_variants.train import settings as settings_lib
from experiments import ablation as ablations
from experiments import rows
from experiments.peers import gaussian_process


def settings(pieces="", **changes):
    from configs import regression

    config = regression.get_config(pieces)
    config.update_from_flattened_dict({"data.rows": 60} | changes if "csv" not in pieces else changes)
    return settings_lib.parse(config)


def test_a_gaussian_process_is_better_than_the_mean_and_no_better_than_the_noise():
    own = settings(**{"data.rows": 200, "data.noise": 0.5})
    found, task = gaussian_process.rbf(own), tasks.load("regression").Task.new(own)
    test = task.table.y_N[task.scaled.split.test]
    assert 0.3 < found["test"]["rmse"] < 0.65 < np.std(test)
    assert found["test"]["rmse_best"] == found["test"]["rmse"] != found["validation"]["rmse"]


def test_its_error_is_in_the_units_of_the_target_and_of_the_test_rows(tmp_path):
    """Ten times the target, ten times the error; a target that is off in a test row alone counts there alone."""
    x = np.linspace(0, 5, 60)
    rows = tasks.load("regression").Task.new(settings()).scaled.split.test

    def error(scale=1.0, off=0.0):
        y = scale * np.sin(2 * x)
        y[rows[0]] += off
        file = tmp_path / f"{json.dumps([scale, off])}.csv"
        file.write_text("x,y\n" + "".join(f"{a},{b}\n" for a, b in zip(x, y, strict=True)))
        return gaussian_process.rbf(settings("data=csv_file", **{"data.path": str(file), "data.target": "y"}))

    one, ten, off = error(), error(10.0), error(off=3.0)
    assert ten["validation"]["rmse"] == pytest.approx(10 * one["validation"]["rmse"], rel=0.05, abs=1e-3)
    assert off["validation"]["rmse"] == one["validation"]["rmse"]
    assert off["test"]["rmse"] == pytest.approx(3 / np.sqrt(len(rows)), rel=0.05)


def test_peers_are_asked_once_and_for_seeds_that_are_on_file_too(tmp_path):
    asked = []

    def ask(settings):
        asked.append(settings.run.seed)
        return {"test": {"rmse": 10.0 + settings.run.seed}}

    ablation = ablations.Ablation("configs/regression.py", [{}, {"hypers.learning_rate": 0.1}], "test.rmse", peers={"theirs": ask})
    plan = ablations.plan(ablation, tmp_path, seeds=3)
    row = lambda run: {"cell": run.cell, "seed": run.seed, "config": ablations.fingerprint(run.settings()), "lanes": 1}
    held = [row(run) for run in plan if not run.cell][:2]
    for beside in ([], [], rows.of_peers(ablation, plan, tmp_path, held)):  # at last on file themselves, in another folder
        folder = tmp_path / "other" if beside else tmp_path
        folder.mkdir(exist_ok=True)
        found = rows.of_peers(ablation, plan, folder, held + beside)
        assert [(one["cell"], one["seed"], one["metrics"]["test"]["rmse"]) for one in found] == [
            ({"peer": "theirs"}, 0, 10.0),
            ({"peer": "theirs"}, 1, 11.0),
        ]
    assert asked == [0, 1]
