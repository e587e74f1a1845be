"""The benchmark suite: one table per question, written with machine and versions to docs/speed.md.

    python -m experiments.speed                                # everything this machine can run
    python -m experiments.speed --benchmark=attention --quick  # one of them, small, only shown

Contenders take turns on the same work, whose results are checked equal first. A ratio is the median over rounds of a contender's
time divided by the first one's in the same round. PyTorch and others are contenders where they are installed.
"""

import importlib
import importlib.metadata
import json
import logging
import os
import pathlib
import pkgutil
import platform
import re
from typing import NamedTuple

import jax
from absl import flags

from attention_variants.errors import unknown
from attention_variants.train import devices
from attention_variants.train.program import start
from attention_variants.train.settings import Parallel
from experiments import benchmarks
from experiments.timing import Table, Timing

FLAGS = flags.FLAGS
BENCHMARK = flags.DEFINE_multi_string("benchmark", None, "a question to answer (may be repeated); by default all of them")
QUICK = flags.DEFINE_bool("quick", False, "small sizes and few rounds, in seconds: whether it runs; nothing is written")

HERE = pathlib.Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "speed", HERE.parent / "docs" / "speed.md"
PACKAGES = ("jax", "flax", "optax", "torch", "transformers")


class Answer(NamedTuple):
    """What one benchmark showed on one machine."""

    machine: str
    versions: str
    tables: list[Table]


def names() -> list[str]:
    """The benchmarks there are: the modules of `experiments.benchmarks`."""
    return [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]


def load(name: str):
    if name not in names():
        raise unknown("benchmark", name, names())
    return importlib.import_module(f"experiments.benchmarks.{name}")


def machine() -> str:
    """The processor and the accelerator, in words."""
    model = platform.processor() or platform.machine()
    if (info := pathlib.Path("/proc/cpuinfo")).exists():
        found = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = found[0] if found else model
    cores = f"{os.cpu_count()} cores of {model}"
    device = jax.devices()[0]
    return cores if device.platform == "cpu" else f"{device.device_kind}, beside {cores}"


def versions() -> str:
    """The Python and the packages that took part."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    found = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    return ", ".join([f"Python {platform.python_version()}", *found])


def in_markdown(name: str, answers: list[Answer]) -> str:
    """A benchmark's section of the page."""
    question, *rest = load(name).__doc__.strip().split("\n", 1)
    lines = [f"## {question}", "", *(line.strip() for line in "".join(rest).strip().splitlines())]
    lines += ["", f"`python -m experiments.speed --benchmark={name}`"]
    for answer in answers:
        lines += ["", f"*{answer.machine}; {answer.versions}*"]
        for table in answer.tables:
            speed = f"{table.unit}/s | " if table.work else ""
            lines += ["", f"**{table.caption[:1].upper()}{table.caption[1:]}**", ""]
            lines += [
                f"| | median | middle half | {speed}times the first | temporary memory |",
                "|---|" + "---|" * (5 if speed else 4),
            ]
            lines += [_row(timing, table.work) for timing in table.timings]
    return "\n".join(lines) + "\n"


def _row(timing: Timing, work: int | None) -> str:
    cells = [timing.name]
    if timing.seconds is None:
        cells += ["not run", ""]
    else:
        middle, low, high = timing.seconds
        cells += [_seconds(middle), f"{_seconds(low)} – {_seconds(high)}"]
    if work:
        cells.append("" if timing.seconds is None else f"{work / timing.seconds[0]:,.0f}")
    cells.append("" if timing.ratio is None else f"{timing.ratio[0]:.2f}")
    cells.append("" if timing.memory is None else f"{timing.memory / 2**20:,.1f} MiB")
    return f"| {' | '.join(cells)} |"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def saved(name: str) -> list[Answer]:
    """The answers to a question there are on file, one for each machine."""
    answers = []
    for path in sorted(RESULTS.glob(f"*/{name}.json")):
        found = json.loads(path.read_text())
        tables = [Table(**table | {"timings": [Timing(*row) for row in table["timings"]]}) for table in found["tables"]]
        answers.append(Answer(found["machine"], found["versions"], tables))
    return answers


def save(name: str, answer: Answer) -> None:
    """Keeps an answer in place of the one there was for this machine."""
    path = RESULTS / re.sub(r"[^a-z0-9.]+", "-", answer.machine.lower()).strip("-") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [table._asdict() for table in answer.tables]
    path.write_text(json.dumps(answer._asdict() | {"tables": tables}, indent=1) + "\n")


def page() -> str:
    """The whole of docs/speed.md."""
    head = "# Speed\n\nMade by `python -m experiments.speed`; not edited by hand.\n\n" + __doc__.split("\n\n", 2)[2]
    return "\n".join([head, *(in_markdown(name, answers) for name in names() if (answers := saved(name)))])


def main() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # contenders in other processes need memory too
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # which back ends are not there is no news
    devices.connect(Parallel(cache=""))
    if QUICK.value:
        print("A quick look at sizes far smaller than the texts say: whether it runs, not how fast.\n")
    for name in BENCHMARK.value or names():
        answer = Answer(machine(), versions(), load(name).measure(QUICK.value))
        print(in_markdown(name, [answer]), flush=True)
        if not QUICK.value:
            save(name, answer)
            PAGE.write_text(page())


if __name__ == "__main__":
    start(main)
