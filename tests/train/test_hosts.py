"""Two processes of two devices each are one device: jax.distributed over loopback, on the CPU."""

import json
import socket
import subprocess
import sys

import pytest

CODE = """
import json, sys
import jax
which, port, workdir, config = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, int(which))
from attention_variants.train.loop import train
train(json.loads(config), workdir, quiet=True)
"""


@pytest.mark.slow
def test_two_hosts_are_one(make_config, trained, environment, tmp_path):
    """Each host reads its own rows of every batch; the losses of all steps and the results are those of one process."""
    alone, _ = trained
    config = make_config(**{"hypers.dropout": 0.1, "parallel.devices": 0})
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = (str(port), str(tmp_path / "run"), json.dumps(config.to_dict()))
    reachable = environment | {"no_proxy": "localhost"}
    hosts = [
        subprocess.Popen([sys.executable, "-c", CODE, str(which), *arguments], env=reachable, stderr=subprocess.PIPE, text=True)
        for which in range(2)
    ]
    errors = [host.communicate(timeout=280)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], errors

    def losses(workdir):
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows]

    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=1e-4)
    found, expected = (json.loads((w / "results.json").read_text()) for w in (tmp_path / "run", alone))
    assert found["test"]["loss"] == pytest.approx(expected["test"]["loss"], rel=1e-4)
