"""The house stands as designed: imports only go down, files stay small, nothing is named after one machine."""

import ast
import pathlib
import re
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "attention_variants"
FLOORS = {
    "errors": -2, "modules": -1, "ops": 0, "figures": 0, "particles": 0, "data": 0,
    "variants": 1, "models": 2, "tasks": 3, "train": 4, "analysis": 5,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
TRACKED = ["-c"]


def imports(text: str, package: str = "") -> set[str]:
    """Full names of all that a file imports, wherever in the file: `from a import b` is a.b."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def of(path: pathlib.Path) -> set[str]:
    return imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))


def place(name: str) -> str | None:
    """The folder (or file) right below the package that a name lies in; None outside the package and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "attention_variants" and len(parts) > 1 else None


def name_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def outside(path: pathlib.Path) -> set[str]:
    return {name.split(".")[0] for name in of(path)}


def test_imports_are_found_wherever_they_stand():
    lines = (
        "def f():",
        "    from ..train import loop",
        "    import jax.numpy as jnp",
        "from . import x",
        "from .y import z",
        "from a import b",
    )
    text = "\n".join(lines)
    found = imports(text, "attention_variants.ops")
    assert found == {"attention_variants.train.loop", "jax.numpy", "attention_variants.ops.x", "attention_variants.ops.y.z", "a.b"}


def test_every_folder_has_a_floor():
    places = {place(name_of(path)) for path in FILES} - {"__init__"}
    assert places <= FLOORS.keys()
    assert len(FILES) > 30


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != PACKAGE or p.stem in FLOORS], ids=name_of)
def test_no_import_goes_up(path):
    """To one's own folder or to a lower floor; neighbours on a floor do not know each other; nobody imports the package's face."""
    own = place(name_of(path))
    for name in of(path):
        if name == "attention_variants":
            pytest.fail(f"{path} imports the public face of the package")
        there = place(name)
        if there is not None and there != own:
            assert FLOORS[there] < FLOORS[own], f"{path} imports {name}"


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("ops", {"flax", "optax", "orbax", "ml_collections", "grain", "matplotlib"}),
        ("figures", {"jax", "flax", "optax"}),
        ("data", {"jax", "flax", "optax", "orbax"}),
        ("particles", {"flax"}),
        ("variants", {"optax", "ml_collections"}),
        ("models", {"optax", "ml_collections"}),
        ("train", {"flax"}),
    ],
)
def test_what_a_floor_may_not_import(folder, forbidden):
    for path in sorted((PACKAGE / folder).glob("*.py")):
        assert not outside(path) & forbidden, path


def test_ops_is_pure_maths_on_jax():
    """Nothing but jax, numpy and the standard library."""
    known = {
        "jax",
        "numpy",
        "attention_variants",
        "math",
        "functools",
        "dataclasses",
        "typing",
        "collections",
        "__future__",
        "operator",
        "itertools",
    }
    for path in (PACKAGE / "ops").glob("*.py"):
        assert outside(path) <= known, path


@pytest.mark.parametrize(
    ("folder", "names"),
    [("train", "tasks"), ("models", "variants"), ("tasks", "variants"), ("train", "variants"), ("train", "data")],
)
def test_a_name_finds_a_module_and_none_is_imported_by_name(folder, names):
    """The files that a config selects are never imported by those that load them; the config file is."""
    selected = {"tasks": {"Task"}, "variants": {"Layer"}, "data": {"METRIC", "table", "labelled"}}[names]
    files = {
        p.stem
        for p in (PACKAGE / names).glob("*.py")
        if selected & {getattr(n, "name", "") for n in ast.parse(p.read_text()).body} | _assigned(p) & selected
    }
    assert files
    for path in (PACKAGE / folder).glob("*.py"):
        for name in of(path):
            parts = name.split(".")
            assert not (parts[:2] == ["attention_variants", names] and len(parts) > 2 and parts[2] in files), (
                f"{path} imports {name}"
            )


def _assigned(path) -> set[str]:
    return {
        t.id for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    }


def test_train_is_never_imported_by_what_it_runs_and_analysis_never_by_train():
    for path in FILES:
        if place(name_of(path)) == "train":
            assert not any(place(name) == "analysis" for name in of(path))


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "configs").rglob("*.py")), ROOT / "main.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_are_small(path):
    lines = len(path.read_text().splitlines())
    limit = 80 if path.name == "main.py" else 150 if path.parent.name in ("ops", "variants") else 300
    assert lines <= limit
    assert path.stem not in ("utils", "util", "helpers", "misc", "common_utils")


def test_the_tree_is_two_deep():
    assert max(len(path.relative_to(PACKAGE).parts) for path in FILES) <= 2


@pytest.mark.parametrize("path", [p for p in FILES if p.read_text().strip()], ids=name_of)
def test_every_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_pyproject_lists_every_package():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == {".".join(p.relative_to(ROOT).parent.parts) for p in FILES if p.name == "__init__.py"}


def test_no_tracked_file_names_a_place_on_one_machine():
    """Home folders, this checkout, temporary folders of a session: none of them is anywhere else."""
    try:
        done = subprocess.run(["git", "ls-files", *TRACKED], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    places = re.compile(r"/(root|home|Users|work|mnt|opt)/\w|[A-Z]:\\\\\w|/tmp/\w")
    for name in done.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".png", ".gz", ".npz", ".safetensors") or not path.is_file() or path == pathlib.Path(__file__):
            continue
        found = [line.strip() for line in path.read_text().splitlines() if places.search(line)]
        assert not found, f"{name}: {found[0]}"
