"""Where arrays live and how the step is compiled: `jit` over a mesh of devices, or `pmap`; both equal one device.

A batch's rows are divided over the devices, everything else is replicated. Gradients and losses are sums and weights, so the
result does not depend on how many devices there are.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.errors import InputError
from attention_variants.train.settings import Parallel

AXIS = "data"


class Place(NamedTuple):
    """Puts a batch of numpy arrays on the devices; `multiple` is what its number of rows must be a multiple of."""

    put: Callable
    multiple: int

    def __call__(self, batch):
        return self.put(batch)


class Backend(NamedTuple):
    """`place` for training batches, `place_whole` for evaluation; `replicate` for state; `compile(step, *arguments)` gives
    (callable, FLOPs of a call by XLA's own count of the unoptimised program)."""

    place: Place
    place_whole: Place
    replicate: Callable
    compile: Callable


def connect(settings: Parallel) -> Backend:
    """The backend of the settings. Raises InputError where there are fewer devices than asked for."""
    available = jax.local_device_count()
    if settings.devices > available:
        raise InputError(f"parallel.devices is {settings.devices}; found {available} {jax.default_backend()} device(s)")
    whole = jax.process_count() > 1 or not settings.devices
    devices = jax.devices() if whole else jax.local_devices()[: settings.devices]
    return (_pmap if settings.backend == "pmap" else _jit)(devices)


def _jit(devices) -> Backend:
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    rows, everywhere = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    def put(batch):
        return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}

    def compiled(step, *arguments):
        shardings = dict(in_shardings=(everywhere, rows, everywhere), out_shardings=everywhere)
        lowered = jax.jit(step, donate_argnums=0, **shardings).lower(*arguments)
        return lowered.compile(), _flops(lowered)

    place = Place(put, len(devices))
    replicate = functools.partial(jax.device_put, device=everywhere)
    return Backend(place, _one_device() if jax.process_count() > 1 else place, replicate, compiled)


def _pmap(devices) -> Backend:
    here = [d for d in devices if d.process_index == jax.process_index()]

    def put(batch):
        return {k: np.reshape(v, (len(here), -1, *v.shape[1:])) for k, v in batch.items()}

    def compiled(step, *arguments):
        step = functools.partial(step, axis=AXIS)
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices)
        lowered = mapped.lower(*arguments)
        return lowered.compile(), _flops(lowered)

    return Backend(Place(put, len(devices)), _one_device(), lambda tree: tree, compiled)


def _one_device() -> Place:
    return Place(functools.partial(jax.device_put, device=jax.local_devices()[0]), 1)


def local(tree):
    """A replicated tree as this process sees it, for computations of its own."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def _flops(lowered) -> float:
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))
