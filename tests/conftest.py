"""What all tests share: four virtual CPU devices, no network, one tiny config, one trained workdir, one compilation cache."""

import gc
import os
import pathlib
import subprocess
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"  # which take twice as long to compile

import jax
import pooch
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile much and compute little

ROOT = pathlib.Path(__file__).parents[1]
MAPPINGS = 20_000


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    """The home folder of this session, where programs that any of its workers has compiled are kept; it is gone with it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """What the files before have left, which is gigabytes, is not looked through whenever garbage is collected.

    A compiled program is about nine mappings of memory, of which Linux gives a process 65,530; one that has no more crashes when it
    compiles. Long before that the programs of files before are let go; those that are wanted again are still on disk.
    """
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("tests do not download")

    monkeypatch.setattr(pooch, "retrieve", refuse)


@pytest.fixture
def as_users_compile():
    """Programs are compiled with all optimisations: what is measured of them is what users get."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def optimised():
    """What an environment has to say where subprocesses are to compile as users do: what is measured of them is what users get."""
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}


@pytest.fixture(scope="session")
def make_config():
    """`make_config(piece, …, **{"section.key": value})`: the tiny config on dates, one device, one batch shape, twelve steps."""

    def make(pieces: str = "tiny", **changes):
        from configs import translation

        config = translation.get_config(pieces)
        config.parallel.devices = 1
        config.task.update(packed=False, max_padding=1.0)
        config.run.update(duration="12 steps", evaluate="6 steps", checkpoint="2 steps")
        config.log.update(every="1 steps", tensorboard=False)
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture
def tiny_config(make_config):
    return make_config()


@pytest.fixture(scope="session")
def trained(make_config, tmp_path_factory):
    """(workdir, Result) of the tiny config with dropout, trained without a break; not to be written to."""
    from attention_variants.train import loop

    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, loop.train(make_config(**{"hypers.dropout": 0.1, "log.tensorboard": True}), workdir, quiet=True)


@pytest.fixture(scope="session")
def environment(_home):
    """The environment of subprocesses: no accelerator, no network, four virtual devices, quick compilation."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    kept = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy" and not k.startswith("JAX_")}
    ours = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    return kept | nowhere | ours


@pytest.fixture(scope="session")
def python(environment):
    """`python(code, *arguments, **environment)`: what a fresh interpreter prints; it must succeed."""

    def run(code: str, *arguments, **more) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, env=environment | more, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def command():
    """`command(*flags)`: the words of a call of main.py."""
    return lambda *flags: [sys.executable, str(ROOT / "main.py"), *map(str, flags)]


@pytest.fixture(scope="session")
def program(environment, command):
    """`program(*flags, stdin=…, **environment)`: main.py run to its end, as a CompletedProcess of bytes decoded as UTF-8."""

    def run(*flags, stdin: bytes = b"", **more):
        done = subprocess.run(command(*flags), cwd=ROOT, env=environment | more, input=stdin, capture_output=True, timeout=280)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
