"""An ablation: a file `experiments/NAME.py` whose docstring names the paper and the question and which defines ABLATION."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NamedTuple

from attention_variants.errors import InputError, unknown
from attention_variants.train import settings as settings_lib
from attention_variants.train.workdir import FREE
from experiments import sweep
from experiments.sweep import Cell, Sweep

ROOT = pathlib.Path(__file__).parents[1]
TINY = " (tiny)"  # after the name of what shows nothing


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What is compared with what.

    Attributes:
      config: the config file and the pieces that all cells share, "configs/translation.py:data=dates".
      cells: what each cell changes; see `sweep`. The first is the baseline that the others are held against.
      metric: where in results.json, "test.bleu". also: other numbers there whose means the table shows, without a test.
      settings: what all cells change. tiny: what a look at it in seconds changes after that.
      paper: the paper's number of a cell, by the cell's name. source: where in which paper they stand, and what they measure.
      test_share: where seeds are splits of the same data, whose training sets overlap: test examples divided by training examples.
      peers: what else stands in the table, by name: functions of a run's settings whose answer is metrics by split, as the run's
        own, on the split of its seed. They are asked once, when the runs of the baseline are done.
      look: what else is to be known of a finished run, numbers by name from its workdir; "looks.NAME" in `also`.
      curves: what is drawn over steps, "validation.loss". pictures: figures of the first seed's run that the page shows.
    """

    config: str
    cells: Sweep
    metric: str
    settings: Cell = dataclasses.field(default_factory=dict)
    tiny: Cell = dataclasses.field(default_factory=dict)
    also: tuple[str, ...] = ()
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    test_share: float | None = None
    peers: Mapping[str, Callable[[settings_lib.Settings], dict]] = dataclasses.field(default_factory=dict)
    look: Callable[[pathlib.Path], dict[str, float]] | None = None
    curves: tuple[str, ...] = ("train.loss", "validation.loss")
    pictures: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.cells:
            raise InputError("the ablation has no cells; expected at least one, [{}] for the config as it is")
        names = [sweep.name(cell) for cell in self.cells]
        folders = [sweep.folder(cell).lower() for cell in self.cells]
        for i, folder in enumerate(folders):
            if folder in folders[:i]:
                first = folders.index(folder)
                raise InputError(f"cells {first} ({names[first]}) and {i} ({names[i]}) would share a workdir, {folder}")
        for name in self.paper:
            if name not in names:
                raise unknown("cell that has a number of the paper:", name, names)
        if self.test_share is not None and not self.test_share > 0:
            raise InputError(f"test_share is {self.test_share}; expected test examples divided by training examples, or None")
        if self.paper and not self.source:
            raise InputError("the ablation has numbers of a paper and no source; expected paper, table and what they measure")

    @property
    def lines(self) -> list[Cell]:
        """What the table has a line for: the cells, and {"peer": name} for each peer."""
        return [*self.cells, *({"peer": name} for name in self.peers)]

    @property
    def axes(self) -> list[str]:
        """The keys in which cells differ, in the order of their first appearance."""
        return list(dict.fromkeys(key for cell in self.cells for key in cell))


class Run(NamedTuple):
    """One cell with one seed.

    Attributes:
      config: FILE.py:pieces, for --config. changes: every setting that is overridden, run.seed among them.
    """

    cell: Cell
    seed: int
    workdir: pathlib.Path
    config: str
    changes: Cell

    @property
    def name(self) -> str:
        return f"{sweep.name(self.cell)}, seed {self.seed}"

    def command(self) -> list[str]:
        """The words of the command that trains this run alone, from any folder."""
        file, colon, pieces = self.config.partition(":")
        flags = [f"--config.{key}={value}" for key, value in self.changes.items()]
        return [
            sys.executable,
            str(ROOT / "main.py"),
            f"--config={ROOT / file}{colon}{pieces}",
            f"--workdir={self.workdir}",
            *flags,
        ]

    def resolve(self):
        """The ConfigDict that this command makes.

        Raises:
          InputError: a piece, key or value that there is not.
        """
        file, _, pieces = self.config.partition(":")
        config = _config_file(file).get_config(pieces)
        for key, value in self.changes.items():
            node = config
            *sections, last = key.split(".")
            if last == "name":
                raise InputError(f"{key} cannot be changed; names are pieces of the config string, {sections[0]}=…")
            for section in sections:
                node = node[_known(section, node, key)]
            _known(last, node, key)
            try:
                node[last] = value
            except TypeError:
                raise InputError(f"{key} is {value!r}; expected {type(node[last]).__name__}, such as {node[last]!r}") from None
        return config

    def settings(self) -> settings_lib.Settings:
        """The settings of this run; InputError as `resolve`, and for a value out of range."""
        return settings_lib.parse(self.resolve())


def fingerprint(settings: settings_lib.Settings) -> str:
    """Twelve digits that two runs share only where all that their numbers depend on is the same."""
    tree = {section: values for section, values in settings.as_dict().items() if section not in FREE}
    if tree["particles"]["method"] == "none":
        del tree["hypers"]["alpha"], tree["hypers"]["temperature"]
        if not tree["particles"]["collapsed"]:  # then nothing of them is read
            del tree["particles"]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def load(path: str) -> tuple[str, ModuleType]:
    """(the name of an ablation, its module) from its file, or from the name alone.

    Raises:
      InputError: there is no such file, it does not import, or it does not define ABLATION.
    """
    file = pathlib.Path(path).absolute()
    if not file.suffix and not file.exists():
        file = ROOT / "experiments" / f"{path}.py"
    if not file.is_file() or file.suffix != ".py":
        raise unknown("ablation", path, names())
    spec = importlib.util.spec_from_file_location(f"experiments.{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise InputError(f"{path} does not import: {type(error).__name__}: {error} (line {line})") from None
    if not isinstance(getattr(module, "ABLATION", None), Ablation):
        raise InputError(f"{path} defines no ABLATION; expected ABLATION = Ablation(config=…, cells=…, metric=…)")
    return file.stem, module


def names() -> list[str]:
    """The ablations that lie beside this file."""
    files = sorted((ROOT / "experiments").glob("*.py"))
    return [file.stem for file in files if "ABLATION = Ablation(" in file.read_text() and file.stem != "ablation"]


def of_workdir(workdir: pathlib.Path) -> dict:
    """What a launch has written of itself into the folder. Raises InputError where it has not."""
    try:
        found = json.loads((workdir / "experiment.json").read_text())
        return {"seeds": 5, "again": False} | {name: found[name] for name in found.keys() | {"experiment", "file", "tiny"}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        wanted = "expected the --workdir of a launch, or a new or empty folder for one"
        raise InputError(
            f"{workdir} is not the workdir of an ablation (it has no experiment.json that says so); {wanted}"
        ) from None


def plan(ablation: Ablation, workdir: pathlib.Path, seeds: int, tiny: bool = False) -> list[Run]:
    """Every run, cell by cell, each checked; nothing is written.

    Raises:
      InputError: a cell whose config there cannot be (which cell, which key, the nearest known one).
    """
    if seeds < 1:
        raise InputError(f"--seeds is {seeds}; expected at least 1")
    runs = []
    for number, cell in enumerate(ablation.cells):
        file, _, shared = ablation.config.partition(":")
        pieces = [shared] if shared else []
        pieces += ["tiny"] * tiny + [f"{key}={value}" for key, value in cell.items() if "." not in key]
        changes = ablation.settings | {key: value for key, value in cell.items() if "." in key}
        changes |= {key: value for key, value in (ablation.tiny if tiny else {}).items() if key not in cell}
        config = f"{file}:{','.join(pieces)}" if pieces else file
        folder = workdir / sweep.folder(cell)
        own = [Run(cell, seed, folder / f"seed={seed}", config, changes | {"run.seed": seed}) for seed in range(seeds)]
        try:
            own[0].settings()
        except InputError as error:
            raise InputError(f"cell {number} ({sweep.name(cell)}): {error}") from None
        runs += own
    return runs


def _known(key: str, node, path: str) -> str:
    keys = list(node.keys()) if hasattr(node, "keys") else []
    if key not in keys:
        raise unknown(f"config key in {path}:", key, keys or ["(it has no keys)"])
    return key


@functools.cache
def _config_file(file: str) -> ModuleType:
    path = ROOT / file
    if not path.is_file():
        raise InputError(f"cannot load the config file {file!r}; expected a file such as configs/translation.py")
    spec = importlib.util.spec_from_file_location(f"configs_of_an_ablation.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
