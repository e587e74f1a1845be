"""How many tokens a second does a training step take, against the same model in flax.linen and in PyTorch?

The Transformer of `configs/translation.py:data=multi30k` (pre-norm, dropout 0.2 of sublayers, label smoothing 0.1, Adam,
clipping), float32, on one batch of 112 pairs of up to 22 and 23 tokens, a tenth of them padding. Loss and gradients without
dropout, and with softplus for ReLU, are checked equal from the same parameters first. Each contender works in a process of its
own, as whoever uses it runs it, while the others wait; ours keeps freed memory (`train/devices.py`), which is worth a fifth of a
step on a CPU, so the last linen is one that does so too. linen draws its dropout bits with Threefry, as is its default; with "rbg"
keys; and with our hash. PyTorch is `torch.nn.Transformer`, eager, with SDPA and its own Adam. The floor is the time of the matrix
products of projections, feed-forward nets and logits alone, forward and backward.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from attention_variants.models import layers, transformer
from attention_variants.ops.affine import affine
from attention_variants.ops.dropout import Dropout, drop
from attention_variants.tasks.translation import Task
from attention_variants.train import devices, optimizers
from attention_variants.train import settings as settings_lib
from attention_variants.train import step as step_lib
from configs import translation
from experiments.peers import linen_transformer
from experiments.timing import Contender, Table, alternate, apart, assert_same, temporary_bytes

VOCABULARY = 4000


def measure(quick: bool) -> list[Table]:
    if quick:
        return [table("tiny", rounds=2, rows=8, layers=1)]
    if jax.default_backend() == "gpu":
        return [table("base", rounds=15, rows=1024, dtype="bfloat16")]
    return [table("small", rounds=15, rows=112), table("base", rounds=5, rows=112)]


def table(size: str, rounds: int, rows: int, **changes) -> Table:
    work = (size, rows, changes)
    contenders = [ours(*prepare(*work))]
    contenders += [apart(f"flax.linen, {way}", linen, way, *work) for way in DROPOUT]
    contenders += [linen("our dropout", *work)._replace(name="flax.linen, our dropout and memory")]
    if importlib.util.find_spec("torch"):
        contenders.append(apart(f"PyTorch {importlib.metadata.version('torch').split('+')[0]}", pytorch, *work))
    contenders.append(matrix_products(*work))
    task, settings, batch = prepare(*work)
    caption = (
        f"size `{size}`, {settings.model.dtype}, {rows} pairs; the floor's matrix products are {products(*work) / 1e9:,.1f} GFLOP"
    )
    return Table(caption, alternate(contenders, rounds=rounds, same=None), task.tokens(batch))


def prepare(size: str, rows: int, changes: dict):
    """(task, settings, batch)."""
    config = translation.get_config("data=multi30k")
    config.model.update(transformer.size(size) | changes)
    settings = settings_lib.parse(config)
    return Task(settings, range(VOCABULARY)), settings, tokens(rows)  # a Task asks no more of a vocabulary here than its length


def tokens(rows: int) -> dict[str, np.ndarray]:
    """A batch with Multi30k's most frequent lengths, a tenth of it padding."""
    random = np.random.default_rng(0)
    batch = {"id": np.arange(rows, dtype=np.uint32)}
    for name, length in (("source", 22), ("target", 23)):
        lengths = random.integers(round(0.8 * length), length + 1, (rows, 1))
        batch[name] = np.where(np.arange(length) < lengths, random.integers(4, VOCABULARY, (rows, length)), 0).astype(np.int32)
    return batch


def ours(task, settings, batch) -> Contender:
    """Our training step of any task."""
    backend = devices.connect(settings.parallel)
    shape = optimizers.schedule(settings.optimizer, total=2000, per_epoch=200, width=task.width)
    state, hypers = backend.replicate(step_lib.init(task, settings, 0)), backend.replicate(step_lib.hypers_of(settings)[0])
    placed = backend.place(batch)
    program = backend.compile(step_lib.make(task, settings, shape), state, placed, hypers).run

    def run():
        nonlocal state
        state, metrics = program(state, placed, hypers)
        return float(metrics["loss"])

    return Contender("attention_variants", run, temporary_bytes(program))


class OurDropout(nn.Module):
    """What nn.Dropout does, with our bits."""

    rate: float
    deterministic: bool

    def __call__(self, x):
        return x if self.deterministic else drop(x, Dropout(self.rate, self.make_rng("dropout"), jnp.arange(len(x))))


DROPOUT = {
    "its own dropout": ("threefry2x32", nn.Dropout),
    "rbg keys": ("rbg", nn.Dropout),
    "our dropout": ("threefry2x32", OurDropout),
}


@contextlib.contextmanager
def smooth():
    """Softplus for ReLU, so that gradients can be compared: a ReLU at rounding's distance from zero may be on here, off there."""
    with mock.patch.object(nn, "relu", nn.softplus), mock.patch.dict(layers.ACTIVATIONS, relu=nn.softplus):
        yield


def linen(way: str, *work) -> Contender:
    """The same model in stock linen, with one of the ways to draw dropout's bits."""
    task, settings, batch = prepare(*work)
    hypers, (keys, dropout) = settings.hypers, DROPOUT[way]
    model = linen_transformer.Transformer(settings.model, VOCABULARY, hypers.dropout, dropout)
    params, _ = task.init(jax.random.key(0))
    with smooth():
        value, grads = reference(task, params, batch)
        theirs, their_grads = jax.jit(jax.value_and_grad(lambda p: linen_transformer.loss(model, p, batch, None, 0.0)))(params)
    flat = lambda tree: ravel_pytree(tree)[0]
    assert_same((value, flat(grads)), (theirs, flat(their_grads)), tolerance=1e-4 if settings.model.dtype == "float32" else 3e-2)
    optimizer = optax.chain(optax.clip_by_global_norm(settings.optimizer.clip), optax.adam(hypers.learning_rate))
    program = linen_transformer.make_step(model, optimizer, hypers.label_smoothing)
    arguments = [params, optimizer.init(params), jax.device_put(batch), jax.random.key(0, impl=keys), jnp.int32(0)]
    program = program.lower(*arguments).compile()

    def run():
        *arguments[:2], value = program(*arguments)
        arguments[4] += 1
        return float(value)

    return Contender(f"flax.linen, {way}", run, temporary_bytes(program))


def pytorch(*work) -> Contender:
    """The same model in PyTorch."""
    import torch

    from experiments.peers import torch_transformer

    task, settings, batch = prepare(*work)
    hypers, (params, _) = settings.hypers, task.init(jax.random.key(0))
    with smooth():
        value, grads = reference(task, params, batch)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    batch = {k: torch.from_numpy(v).long().to(device) for k, v in batch.items() if k != "id"}
    model, without = (torch_transformer.Transformer(settings.model, VOCABULARY, rate).to(device) for rate in (hypers.dropout, 0.0))
    torch_transformer.load(model, jax.device_get(params))
    torch_transformer.load(without, jax.device_get(params))
    for layer in without.modules():
        if hasattr(layer, "activation"):
            layer.activation = torch.nn.functional.softplus  # as `smooth` does
    narrow = torch.autocast(device, torch.bfloat16, enabled=settings.model.dtype == "bfloat16")
    with narrow:
        found = torch_transformer.loss(without, batch, 0.0)
    found.backward()
    tolerance = 1e-4 if settings.model.dtype == "float32" else 3e-2
    assert_same(value, found.item(), tolerance=tolerance)
    assert_same(grads["embedding"]["embedding"], without.embedding.weight.grad.cpu().numpy(), tolerance=tolerance)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), hypers.learning_rate)
    loss = torch.compile(torch_transformer.loss) if device == "cuda" else torch_transformer.loss

    def run():
        optimizer.zero_grad()
        with narrow:
            value = loss(model, batch, hypers.label_smoothing)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip)
        optimizer.step()
        return value.item()

    return Contender(f"PyTorch {torch.__version__.split('+')[0]}", run)


def reference(task, params, batch):
    """Our loss per target token and its gradients, without dropout."""

    def loss(params):
        total, weight, *_ = task.loss(params, {}, batch, None, {})
        return total / weight

    return jax.jit(jax.value_and_grad(loss))(params)


def matrices(*work) -> list[tuple[int, int, int, int]]:
    """(rows, columns in, columns out, how often) of every product with a matrix of the model."""
    _, settings, batch = prepare(*work)
    config, source, target = settings.model, batch["source"].size, batch["target"].size
    width, inner, layers = config.width, config.feed_forward, config.layers
    return [
        (source, width, width, 6 * layers),  # encoder: query, key, value, out; decoder: key and value across
        (target, width, width, 6 * layers),
        *((tokens, *sizes, layers) for tokens in (source, target) for sizes in ((width, inner), (inner, width))),
        (target, width, VOCABULARY, 1),
    ]


def products(*work) -> int:
    """FLOPs of these products, forward and backward."""
    return sum(6 * rows * columns * out * times for rows, columns, out, times in matrices(*work))


def matrix_products(*work) -> Contender:
    """The products x W, dy Wᵀ and xᵀ dy of every matrix of the model, one after the other."""
    dtype = prepare(*work)[1].model.dtype

    @jax.jit
    def three(x, w, dy):
        y, pull = jax.vjp(lambda x, w: affine(x, w, None), x, w)
        return y, *pull(dy)

    programs = []
    for rows, columns, out, times in matrices(*work):
        arguments = [jnp.ones(shape, dtype) for shape in ((rows, columns), (columns, out), (rows, out))]
        programs.append((functools.partial(three.lower(*arguments).compile(), *arguments), times))

    def run():
        for program, times in programs:
            for _ in range(times):
                done = program()
        jax.block_until_ready(done)

    return Contender("its matrix products alone", run)
