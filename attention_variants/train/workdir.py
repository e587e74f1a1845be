"""A run's folder: the same folder again resumes, a new one is a new run.

config.json, command.txt, environment.json, vocabulary.json, metrics.jsonl, tensorboard/, checkpoints/, figures/, results.json, and
DONE at the end.
"""

import ast
import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from attention_variants.errors import InputError
from attention_variants.train import settings as settings_lib
from attention_variants.train.settings import Settings

FREE = ("log", "parallel")  # sections that may change between a run and its resumption


def check(workdir: str | pathlib.Path, settings: Settings) -> pathlib.Path:
    """The absolute path of a folder that is new, empty, or a run with these settings; nothing is written.

    Raises:
      InputError: the folder belongs to another config (what differs), holds other things, or cannot be read.
    """
    workdir = pathlib.Path(workdir).expanduser().absolute()
    with told_of(workdir):
        if (workdir / "config.json").exists():
            # What was not there when the run began has its default.
            ours, theirs = settings.as_dict(), settings_lib.parse(_read_config(workdir)).as_dict()
            for section in FREE:
                ours.pop(section), theirs.pop(section)
            if changed := settings_lib.differences(ours, theirs):
                raise InputError(
                    f"{workdir} belongs to another config ({'; '.join(changed)}); expected a new --workdir for a new run"
                )
        elif not unused(workdir):
            raise InputError(f"{workdir} exists and is not a run of this project; expected a new or empty folder")
    return workdir


@contextlib.contextmanager
def open_for_training(workdir: pathlib.Path, settings: Settings, command: str | None = None):
    """Makes the folder and writes what is known at the start: the config, command and environment of every start.

    Until the context ends no other process can train there.

    Args:
      command: what starts this run alone, where it is not what this process was started with.

    Raises:
      InputError: it cannot be written, or another process trains there.
    """
    with contextlib.ExitStack() as opened:
        with told_of(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            opened.enter_context(alone(workdir, command))
            write_json(workdir / "config.json", settings.as_dict())  # from here on the folder is known as this run's
            path = workdir / "environment.json"
            starts = json.loads(path.read_text()) if path.exists() else []
            write_json(path, [*starts, environment()])
        yield


def unused(folder: pathlib.Path) -> bool:
    """Whether the folder is new, or has nothing in it but what a start that was killed at once leaves."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(file.suffix == ".partial" or file.name == "command.txt" for file in folder.iterdir())


@contextlib.contextmanager
def alone(folder: pathlib.Path, command: str | None = None):
    """Keeps other processes from working in a folder until the context ends, and adds the command to its `command.txt`.

    The lock is the operating system's, on that file: it goes when the process does, however it ends. A file system that has no
    locks keeps nobody out.

    Raises:
      InputError: another process works there.
    """
    with (folder / "command.txt").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is at work in {folder}; expected to wait for its end, or to stop it") from None
        except OSError:
            pass
        file.write((command or shlex.join(sys.argv)) + "\n")
        file.flush()
        yield


def busy(folder: pathlib.Path) -> bool:
    """Whether a process works in the folder."""
    try:
        with (folder / "command.txt").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def open_for_reading(workdir: str | pathlib.Path, changes: Sequence[str] = ()) -> tuple[pathlib.Path, Settings]:
    """The folder of a finished or running run, and its settings with some changed, each as "section.key=value".

    Raises:
      InputError: it is no run's, or a change is of no setting or to no value that it may have.
    """
    workdir = pathlib.Path(workdir).expanduser().absolute()
    with told_of(workdir):
        if not (workdir / "config.json").exists():
            raise InputError(f"{workdir} is not a workdir: it has no config.json; expected the --workdir of a training run")
        config = _read_config(workdir)
    for change in changes:
        if not (parts := re.fullmatch(r"(\w+)\.(\w+)=(.*)", change)):
            raise InputError(f"--change is {change!r}; expected section.key=value, such as task.beams=4")
        section, key, value = parts.groups()
        with contextlib.suppress(ValueError, SyntaxError):  # else it is a word
            value = ast.literal_eval(value)
        config.setdefault(section, {})[key] = value
    return workdir, settings_lib.parse(config)


@contextlib.contextmanager
def told_of(workdir: pathlib.Path):
    """Turns what the file system refuses (a full disk, a missing permission) into an InputError that names the workdir."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot use the workdir {workdir}: {error.strerror or error}") from None


def _read_config(workdir: pathlib.Path) -> dict:
    try:
        config = json.loads((workdir / "config.json").read_text())
    except ValueError:
        config = None
    if not isinstance(config, dict) or not all(isinstance(section, dict) for section in config.values()):
        raise InputError(f"{workdir} is not a run of this project: its config.json is of something else")
    return config


def write_json(path: pathlib.Path, content) -> None:
    """Writes the file whole or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes the file whole or not at all, whenever the process may be killed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def environment() -> dict:
    """Versions, device and git commit."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "sacrebleu")
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [str(d.device_kind) for d in jax.devices()],
        "backend": jax.default_backend(),
        "commit": commit or None,
    }
