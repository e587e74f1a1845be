"""CONTRIBUTING's examples are followed to the letter."""

import importlib
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from workdirs import rows

import attention_variants
from attention_variants.train.loop import train

PAGE = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def example(kind: str) -> str:
    return re.search(rf"<!-- test: {kind} -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def written(tmp_path, request, monkeypatch):
    """The example of this kind, as a file `example` that the package finds among its own."""
    kind = request.param
    package = importlib.import_module(f"attention_variants.{kind}s" if kind == "variant" else f"attention_variants.{kind}")
    (tmp_path / "example.py").write_text(example(kind))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield "example"
    sys.modules.pop(f"{package.__name__}.example", None)


@pytest.mark.parametrize("written", ["variant"], indirect=True)
def test_the_variant_attends_and_learns(written):
    """The file alone makes the variant selectable, and gradients reach the parameter it adds."""
    assert written in attention_variants.variants.names()
    module = attention_variants.MultiHeadAttention(num_heads=2, variant=written)
    x = jax.random.normal(jax.random.key(0), (3, 5, 14))
    params = module.init(jax.random.key(1), x)
    out = module.apply(params, x)
    assert out.shape == x.shape
    gradient = jax.grad(lambda p: (module.apply(p, x) ** 2).sum())(params)["params"]["variant"]["scale"]
    assert np.isfinite(gradient)
    assert gradient != 0
    assert jnp.isfinite(out).all()


def test_the_variant_is_held_to_the_laws_of_every_variant(tmp_path, environment):
    """In a copy of the project, as whoever wrote the file would see it."""
    root = pathlib.Path(__file__).parents[1]
    for name in ("attention_variants", "configs", "pyproject.toml"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    for path in ("conftest.py", "test_every_variant.py", "cases", "references"):
        (shutil.copytree if (root / "tests" / path).is_dir() else shutil.copy)(root / "tests" / path, tmp_path / "tests" / path)
    (tmp_path / "attention_variants" / "variants" / "example.py").write_text(example("variant"))
    command = [sys.executable, "-m", "pytest", "-k", "example", "tests/test_every_variant.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("written", ["data"], indirect=True)
def test_the_source_trains(written, tmp_path):
    """The file alone makes the source selectable in the config string, and a run on it comes to its end."""
    from configs import translation

    config = translation.get_config("data=example,tiny")
    config.run.duration = "2 steps"
    config.task.subwords = 0
    config.parallel.devices = 1
    result = train(config, tmp_path / "run", quiet=True)
    assert result.results["metric"] == "exact_match"
    assert result.results["steps"] == 2


@pytest.mark.parametrize("written", ["tasks"], indirect=True)
def test_the_task_trains_on_its_own_loss(written, tmp_path):
    """Its two files make a run whose loss is one of probabilities, at most 2, and whose checkpoint is chosen by its metric."""
    (tmp_path / "config.py").write_text(example("config"))
    config = runpy.run_path(str(tmp_path / "config.py"))["get_config"]("tiny")
    config.run.update(duration="4 steps", evaluate="2 steps")
    config.log.every = "1 steps"
    config.parallel.devices = 1
    config.task.max_padding = 1.0
    result = train(config, tmp_path / "run", quiet=True).results
    assert result["metric"] == "macro_f1"
    assert all(0 < row["loss"] <= 2 for row in rows(tmp_path / "run") if row["kind"] == "train")


def test_the_ablation_is_launched_and_reported(tmp_path, environment):
    """Norms are two programs, of two lanes each; the table has a line for each cell."""
    root = pathlib.Path(__file__).parents[1]
    (tmp_path / "example.py").write_text(example("ablation"))
    words = [f"--experiment={tmp_path / 'example.py'}", f"--workdir={tmp_path / 'runs'}", "--seeds=1", "--tiny", "--launcher=lanes"]
    command = [sys.executable, "-m", "experiments.launch", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "program 2 of 2: 2 runs" in done.stderr
    assert [line.split(",")[0] for line in (tmp_path / "runs" / "table.csv").read_text().splitlines()[1:]] == ['"norm=post'] * 2 + [
        '"norm=pre'
    ] * 2
