"""The program: answers on standard output, everything else on standard error."""

import json
import pathlib
import re
import subprocess

import pytest

from attention_variants.train import runs

LINES = ["3rd of March 1998", "25.12.2001", "Saturday, the 23rd of September 1978"]
ROOT = pathlib.Path(__file__).parents[2]


def test_help_explains_every_flag(program):
    text = program("--help").stdout
    flags = re.findall(r'DEFINE_\w+\(\s*"(\w+)", [^\n]*?"([^"]{15,})"', (ROOT / "main.py").read_text())
    assert len(flags) >= 6
    flat = " ".join(text.split())
    for name, explanation in flags:
        assert re.search(rf"--(\[no\])?{name}\b", flat), name
        assert explanation in flat, name
    assert "python main.py --config=configs/translation.py" in text
    assert all(mode in text for mode in ("train", "evaluate", "predict"))


def test_predict_writes_a_line_per_line_and_messages_elsewhere(program, trained, tmp_path):
    """From standard input and from a file alike; a line longer than training's is counted and told, and answered whole."""
    wanted, remarks = runs.Loaded(trained[0], print).predict(LINES)
    done = program("--mode=predict", f"--workdir={trained[0]}", stdin="".join(line + "\r\n" for line in LINES).encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(line + "\n" for line in wanted)
    assert remarks == done.stderr.splitlines()
    (tmp_path / "lines").write_text("\n".join([*LINES, "x" * 150]))
    done = program("--mode=predict", f"--workdir={trained[0]}", f"--input={tmp_path / 'lines'}")
    assert done.stdout.splitlines()[:3] == wanted
    assert len(done.stdout.splitlines()) == 4
    assert "1 of 4 lines are longer than the 100 tokens of training (first: line 4)" in done.stderr


def test_evaluate_prints_json_of_the_split(program, trained):
    workdir, (_, results) = trained
    before = sorted(workdir.rglob("*"))
    for split, flags in (("test", []), ("validation", ["--split=validation"])):
        done = program("--mode=evaluate", f"--workdir={workdir}", *flags)
        assert done.returncode == 0, done.stderr
        found, wanted = json.loads(done.stdout), results[split]
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():  # on all devices here, on one there
            assert found[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), name
    assert sorted(workdir.rglob("*")) == before


def test_a_workdir_can_be_asked_with_other_settings_and_stays_as_it_is(program, trained):
    """By beam search, say; the run's own settings are on file as before."""
    workdir, before = trained[0], (trained[0] / "config.json").read_text()
    wide = runs.Loaded(workdir, print, ["task.beams=3", "task.length_penalty=1", "model.route=blockwise"])
    assert (wide.settings.task.beams, wide.settings.task.length_penalty, wide.settings.model.route) == (3, 1.0, "blockwise")
    wanted = wide.predict(LINES)[0]
    assert wanted != runs.Loaded(workdir, print).predict(LINES)[0]
    lines = "".join(line + "\n" for line in LINES).encode()
    changes = ("--change=task.beams=3", "--change=task.length_penalty=1")
    done = program("--mode=predict", f"--workdir={workdir}", *changes, stdin=lines)
    assert done.stdout.splitlines() == wanted, done.stderr
    assert (workdir / "config.json").read_text() == before


def test_train_prints_the_scores_and_a_running_workdir_can_be_asked(program, tmp_path):
    """One command from nothing; flags override the config; then the same command says that it is done."""
    config = [
        "--config=configs/translation.py:tiny",
        "--config.run.duration=3 steps",
        "--config.run.seed=5",
        "--config.hypers.dropout=0.25",
    ]
    workdir = f"--workdir={tmp_path / 'a' / 'run'}"
    done = program(*config, workdir)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"validation", "test"}
    assert "first step done" in done.stderr
    written = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert (written["run"]["seed"], written["hypers"]["dropout"], written["run"]["duration"]) == (5, 0.25, "3 steps")
    assert "--config.run.seed=5" in (tmp_path / "a" / "run" / "command.txt").read_text()
    (tmp_path / "a" / "run" / "DONE").unlink()
    asked = program("--mode=predict", workdir, stdin=b"3rd of March 1998\n")
    assert asked.returncode == 0, asked.stderr
    assert len(asked.stdout.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error(environment, command, trained):
    words = command("--mode=predict", f"--workdir={trained[0]}")
    lines = "3rd of March 1998\n" * 3
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        process.stdout.close()
        process.stdin.write(lines)
        process.stdin.close()
        told = process.stderr.read()
        process.wait(200)
    assert "Traceback" not in told
    assert process.returncode == 0
