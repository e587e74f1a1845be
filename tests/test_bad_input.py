"""Whatever a person gets wrong is told in one sentence on standard error, with exit status 2 and nothing written."""

import concurrent.futures
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest
from cases.mistakes import CASES, CONFIG, TEXTS

from attention_variants.data import downloads

ROOT = pathlib.Path(__file__).parents[1]
# Imports once what main.py does, and then runs it in a fork of itself for each line of standard input.
SERVER = """
import json, os, runpy, sys
import attention_variants.train.cli, attention_variants.train.loop
for line in sys.stdin:
    words, files, environment = json.loads(line)
    if not (child := os.fork()):
        for number, name in enumerate(files):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        os.environ.update(environment)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def contents(folder: pathlib.Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def forked(environment, tmp_path_factory):
    """As `program`, which takes three seconds each time to import what it needs."""
    servers, folder = threading.local(), tmp_path_factory.mktemp("forked")

    def run(*flags, stdin: bytes = b"", **more):
        if not hasattr(servers, "own"):
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            servers.own = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, env=environment, **pipes)
            started.append(servers.own)
        files = [folder / f"{threading.get_ident()}.{name}" for name in ("in", "out", "err")]
        for file, content in zip(files, (stdin, b"", b""), strict=True):
            file.write_bytes(content)
        words = [str(ROOT / "main.py"), *map(str, flags)]
        servers.own.stdin.write(json.dumps([words, [str(file) for file in files], more]) + "\n")
        servers.own.stdin.flush()
        status = int(servers.own.stdout.readline())
        return subprocess.CompletedProcess(words, status, *(file.read_bytes().decode() for file in files[1:]))

    started = []
    yield run
    for server in started:
        server.communicate()


@pytest.fixture(scope="session")
def outcomes(forked, trained, tmp_path_factory):
    """Every case's CompletedProcess, two at a time; a set of what was written, which must stay empty."""
    root = tmp_path_factory.mktemp("bad")
    texts, early, broken, data = (root / name for name in ("texts", "early", "broken", "data"))
    texts.mkdir()
    for name, content in TEXTS.items():
        (texts / name).write_bytes(content)
    run = root / "trained"
    shutil.copytree(trained[0], run)
    early.mkdir()
    shutil.copy(run / "config.json", early)
    shutil.copytree(run, broken)
    (broken / "DONE").unlink()
    for path in (broken / "checkpoints").glob("*/state/**/*"):
        if path.is_file():
            path.write_bytes(b"rust")
    (data / "multi30k").mkdir(parents=True)
    (data / "multi30k" / "train.de.gz").write_bytes(b"not these bytes")
    before = contents(root)

    def call(name):
        flags, _, *stdin = CASES[name]
        known = dict(texts=texts, early=early, broken=broken, trained=run, new=root / f"new {name}")
        words = []
        for flag in flags:
            words += trained_flags() if flag == "{trained_flags}" else [flag.format(**known)]
        return forked(*words, stdin=stdin[0] if stdin else b"", ATTENTION_VARIANTS_DATA=str(data))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = dict(zip(CASES, pool.map(call, CASES), strict=True))
    after = contents(root)
    return done, {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}


def trained_flags() -> list[str]:
    """The flags that say what the fixture `trained` was trained with."""
    changes = {
        "task.packed": False,
        "task.max_padding": 1.0,
        "hypers.dropout": 0.1,
        "run.duration": "12 steps",
        "run.evaluate": "6 steps",
        "run.checkpoint": "2 steps",
    }
    return [f"--config.{name}={value}" for name, value in changes.items()]


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_exit_status_2(outcomes, name):
    done = outcomes[0][name]
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    said = done.stderr.strip().splitlines()
    if name not in ("only broken checkpoints", "resume from only broken checkpoints", "no network and no cache"):  # what was tried
        assert len(said) == 1, done.stderr
    assert said[-1].startswith("error: ")
    assert len(said[-1]) < 600
    assert CASES[name][1] in said[-1]
    assert done.stdout == ""


def test_nothing_was_written(outcomes):
    """But for the records of a run that was rightly begun again and then found its checkpoints broken."""
    written = {str(path) for path in outcomes[1]}
    assert written <= {"broken/environment.json", "broken/command.txt", "broken/config.json"}


def test_the_checksum_message_names_both_hashes(outcomes):
    said = outcomes[0]["wrong checksum"].stderr
    assert hashlib.sha256(b"not these bytes").hexdigest() in said
    assert downloads.SOURCES["multi30k/train.de.gz"]["sha256"] in said


def test_the_download_message_says_from_where_and_where_to_put_it(outcomes):
    said = outcomes[0]["no network and no cache"].stderr
    assert downloads.url("multi30k/train.en.gz") in said
    assert "data/multi30k/train.en.gz" in said


def test_both_counts_are_told(outcomes):
    said = outcomes[0]["files of different length"].stderr
    assert "four has 4 lines" in said
    assert "good has 3" in said


def test_a_rate_that_leaves_every_number_behind_is_one_sentence_too(program, tmp_path):
    """A loss or update that is not finite: exit status 2, the step, and what is left."""
    done = program(CONFIG, "--config.hypers.learning_rate=1e30", "--config.task.max_padding=1.0", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: step 1 " in done.stderr.splitlines()[-1]
    assert "there is no checkpoint yet" in done.stderr
