"""Laws of launching: every launcher comes to the same numbers, nothing is run twice, a failure stops nobody else."""

import json
import os
import shlex
import shutil
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest

from attention_variants.train import workdir
from experiments import ablation as ablations
from experiments import launchers

CELLS = ("as-configured", "dropout=0.2", "label_smoothing=0.1")
RUNS = [f"{cell}/seed={seed}" for cell in CELLS for seed in (0, 1)]


def table(workdir) -> pd.DataFrame:
    """The table without the columns that tell time."""
    return pd.read_csv(workdir / "table.csv").drop(columns=["step_seconds", "seconds", "peak_memory"])


def stamps(workdir) -> dict:
    return {run: (workdir / run / "DONE").stat().st_mtime_ns for run in RUNS}


def test_lanes_leave_a_workdir_for_each_run_and_a_table(launched):
    for run in RUNS:
        results = json.loads((launched / run / "results.json").read_text())
        assert results["lanes"] == len(RUNS)
        assert f"--workdir={launched / run}" in (launched / run / "command.txt").read_text()
    found = table(launched)
    assert found.cell.tolist() == ["as configured", "dropout=0.2", "label_smoothing=0.1"]
    assert found.seeds.tolist() == [2, 2, 2]
    assert found.paper.tolist()[1] == 1.5
    assert all((launched / f"table.{suffix}").exists() for suffix in ("md", "csv", "tex"))


def test_what_is_done_is_not_run_again(launched, launch):
    before = stamps(launched)
    done = launch(launched, "--launcher=lanes")
    assert done.returncode == 0
    assert "6 runs, 6 of them done already" in done.stderr
    assert stamps(launched) == before


def test_processes_come_to_the_numbers_of_lanes(launched, launch, tmp_path):
    """Two cells are there already; a failing run is told of with its last words, and the others go on."""
    for cell in CELLS[1:]:
        shutil.copytree(launched / cell, tmp_path / "w" / cell)
    shutil.copy(launched / "experiment.json", tmp_path / "w")
    blocked = tmp_path / "w" / RUNS[0]
    blocked.mkdir(parents=True)
    (blocked / "something.txt").write_text("not ours")
    done = launch(tmp_path / "w", "--launcher=local", "--jobs=2")
    assert done.returncode == 1
    assert f"failed: as configured, seed 0: {blocked} exists and is not a run of this project" in done.stderr
    assert "Seeds are missing: as configured (1 of 2)" in done.stdout
    for run in RUNS[1:]:
        losses = [json.loads((w / run / "results.json").read_text())["validation"]["loss"] for w in (launched, tmp_path / "w")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    (blocked / "something.txt").unlink()
    again = launch(tmp_path / "w", "--launcher=local")
    assert again.returncode == 0, again.stderr
    assert table(tmp_path / "w")["mean"].tolist() == pytest.approx(table(launched)["mean"].tolist(), rel=1e-4)


def test_commands_are_complete(launch, tmp_path, environment):
    """A line for each run; one of them, from another folder, is that run."""
    done = launch(tmp_path / "w", "--launcher=commands")
    lines = done.stdout.splitlines()
    assert len(lines) == len(RUNS)
    run = subprocess.run(shlex.split(lines[-1]), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "w" / RUNS[-1] / "DONE").exists()
    assert "6 runs, 1 done" in launch(tmp_path / "w", "--dry_run").stdout


def test_a_dry_run_lists_200_cells_in_3_seconds_and_starts_nothing(launch, tmp_path):
    text = (
        '"""Many?"""\nfrom experiments.ablation import Ablation\nfrom experiments.sweep import axis, product\n'
        'ABLATION = Ablation("configs/translation.py", product(axis("hypers.dropout", *(i / 100 for i in range(20))), '
        'axis("model.layers", *range(1, 11))), "test.bleu")\n'
    )
    (tmp_path / "many.py").write_text(text)
    for _ in range(3):  # as the machine may be at other work too
        begun = os.times()
        done = launch(tmp_path / "w", "--dry_run", "--seeds=5", experiment=tmp_path / "many.py")
        seconds = sum(os.times()[2:4]) - sum(begun[2:4])  # of the processor: the tests beside this one do not count
        assert done.returncode == 0, done.stderr
        assert "200 cells, 1000 runs, 0 done; no finished run tells what one costs" in done.stdout
        assert not (tmp_path / "w").exists()
        if seconds < 3:
            break
    assert seconds < 3


def test_a_dry_run_estimates_the_cost_by_finished_runs(launched, launch):
    seconds = [json.loads((launched / run / "results.json").read_text())["seconds"] for run in RUNS]
    done = launch(launched, "--dry_run", "--seeds=7")
    assert "21 runs, 6 done" in done.stdout
    left = sum(seconds) / len(seconds) * 15
    assert f"{round(left)} s of computing left" in done.stdout or f"{round(left / 60)} min of computing left" in done.stdout


def test_an_ablation_that_has_changed_wants_another_workdir(launched, launch, small, tmp_path):
    """Otherwise runs of the old one would stand in one table with runs of the new one."""
    (tmp_path / "small.py").write_text(small.read_text().replace("12 steps", "14 steps"))
    before = stamps(launched)
    done = launch(launched, "--launcher=lanes", experiment=tmp_path / "small.py")
    assert done.returncode == 2
    assert "belongs to another config (run.duration: '12 steps' there, '14 steps' here)" in done.stderr
    assert stamps(launched) == before


def test_a_workdir_that_cannot_be_used_stops_no_lane_beside_it(launched, small, tmp_path):
    """One of something else, and one in which another process is at work."""
    _, module = ablations.load(str(small))
    plan = ablations.plan(module.ABLATION, tmp_path, 1, tiny=True)
    for run in plan[:2]:
        run.workdir.mkdir(parents=True)
    (plan[0].workdir / "something.txt").write_text("not ours")
    shutil.copytree(launched / plan[2].workdir.relative_to(tmp_path), plan[2].workdir)
    board = SimpleNamespace(tell=print, update=lambda now=False: None, failed=set())
    with workdir.alone(plan[1].workdir):
        failures = launchers.load("lanes").launch(plan, board, SimpleNamespace(jobs=0))
    assert [failure.run for failure in failures] == plan[:2]
    assert "is not a run of this project" in failures[0].reason
    assert "another process is at work" in failures[1].reason
    assert board.failed == {run.workdir for run in plan[:2]}


def test_a_second_launch_in_a_workdir_is_refused(launched, launch, tmp_path):
    """While the first is at work there; afterwards it goes on."""
    shutil.copytree(launched, tmp_path / "w")
    before = (tmp_path / "w" / "experiment.json").read_text()
    with workdir.alone(tmp_path / "w"):
        done = launch(tmp_path / "w", "--launcher=lanes", "--seeds=3")
        assert done.returncode == 2
        assert (
            done.stderr == f"error: another process is at work in {tmp_path / 'w'}; expected to wait for its end, or to stop it\n"
        )
        assert (tmp_path / "w" / "experiment.json").read_text() == before
    assert launch(tmp_path / "w", "--launcher=lanes").returncode == 0


@pytest.mark.parametrize(("most", "sizes"), [(0, [6]), (4, [4, 2]), (1, [1] * 6)])
def test_lanes_of_one_program_are_at_most_as_many_as_wanted(most, sizes, small, tmp_path):
    _, module = ablations.load(str(small))
    plan = ablations.plan(module.ABLATION, tmp_path, 2, tiny=True)
    groups = launchers.load("lanes").groups(plan, most)
    assert [len(group) for group in groups] == sizes
    assert [run for group in groups for run in group] == plan


BAD = {
    "no experiment": (["--experiment="], "--experiment is missing"),
    "no such ablation": (["--experiment=experiments/first_lok.py"], "did you mean 'first_look'"),
    "unknown launcher": (["--launcher=lane"], "unknown launcher 'lane'; did you mean 'lanes'"),
    "no ablation": (["--experiment=README.md"], "unknown ablation 'README.md'"),
    "fewer than no processes": (["--jobs=-1"], "--jobs is -1"),
    "no seeds": (["--seeds=0"], "--seeds is 0; expected at least 1"),
    "unknown flag": (["--sedes=3"], "unknown flag 'sedes'; did you mean 'seeds'"),
    "an argument": (["lanes"], "unexpected argument 'lanes'"),
    "tiny rows": (["--record"], "--record with --tiny"),
    "no Slurm": (["--launcher=slurm"], "there is no Slurm on this machine"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_and_starts_nothing(case, launch, tmp_path):
    flags, sentence = BAD[case]
    if case == "no Slurm" and shutil.which("sbatch"):
        pytest.skip("there is a Slurm on this machine")
    done = launch(tmp_path / "w", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"notes.txt": "mine"}, "is not the workdir of an ablation"),
        ({"experiment.json": '{"experi'}, "is not the workdir of an ablation"),
        (
            {"experiment.json": '{"experiment": "other", "file": "x", "tiny": true, "seeds": 2, "again": false}'},
            "holds the runs of other (tiny), not of small (tiny)",
        ),
        (
            {"experiment.json": '{"experiment": "small", "file": "x", "tiny": false, "seeds": 2, "again": false}'},
            "holds the runs of small, not of small (tiny)",
        ),
    ],
)
def test_a_folder_of_something_else_is_left_alone(found, sentence, launch, tmp_path):
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    done = launch(tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == found
