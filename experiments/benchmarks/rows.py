"""How long is a training step of implicit-kernel regression by its authors' protocol, against the same in eager PyTorch?

CO2 (527 rows, all one sequence), frequencies as parameters, 8 heads, 64 frequencies for each, p = 3, dropout 0.1 of the magnitude,
Adam, clipping, and after each step the test error without dropout, all as in `experiments/authors_co2.py`. Without dropout, the
loss and its gradient into all frequencies are checked equal from the same parameters first. PyTorch works in a process of its own
while ours waits, and the other way round.
"""

import importlib.metadata
import importlib.util

import jax
import numpy as np

from attention_variants import tasks
from attention_variants.train import settings as settings_lib
from configs import regression
from experiments.benchmarks.step import ours
from experiments.timing import Contender, Table, alternate, apart, assert_same


def measure(quick: bool) -> list[Table]:
    contenders = [ours(*prepare())]
    if importlib.util.find_spec("torch"):
        contenders.append(apart(f"PyTorch {importlib.metadata.version('torch').split('+')[0]}", pytorch))
    return [Table("a step, and the test error", alternate(contenders, rounds=3 if quick else 15, same=None, least=0.5))]


def prepare():
    """(task, settings, batch)."""
    config = regression.get_config("data=bbq,set=co2,protocol=authors,variant=implicit_kernel_authors")
    config.model.heads = 8
    config.variant.update(mode="direct", points=64, p=3.0)
    settings = settings_lib.parse(config)
    task = tasks.load("regression").Task.new(settings)
    return task, settings, task.batches("train", seed=0)[0]


def pytorch() -> Contender:
    """The same in PyTorch."""
    import torch

    from experiments.peers import torch_rows

    task, settings, batch = prepare()
    params, _ = task.init(jax.random.key(0))
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high")  # on a GPU, as jax by default
    model = torch_rows.Rows(batch["x"].shape[-1], settings.model, settings.variant).to(device)
    torch_rows.load(model, jax.device_get(params))
    x, y, trained, tested = (
        torch.tensor(batch[name][0], dtype=torch.float32, device=device) for name in ("x", "y", "trained", "tested")
    )
    error = lambda rows: (torch.square(model(x) - y)[:, 0] * rows).sum() / rows.sum()
    model.eval()
    value = error(trained)
    value.backward()

    def loss(params):
        total, weight, *_ = task.loss(params, {"rmse_best": np.float32(np.inf)}, batch, None, {})
        return total / weight

    theirs, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert_same(theirs, value.item(), tolerance=1e-4)
    for n, w in enumerate(model.attention.w, start=1):
        assert_same(grads["encoder_0"]["self_attention"]["variant"][f"frequencies_{n}"], w.grad.cpu().numpy(), tolerance=1e-3)
    optimizer = torch.optim.Adam(model.parameters(), settings.hypers.learning_rate)

    def run():
        model.train()
        optimizer.zero_grad()
        value = error(trained)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip)
        optimizer.step()
        model.eval()
        with torch.no_grad():
            return value.item(), error(tested).item()

    return Contender(f"PyTorch {torch.__version__.split('+')[0]}", run)
