"""Where arrays live and how the step is compiled: `jit` over a mesh of devices, or `pmap`; both equal one device.

A batch's rows are divided over the devices, everything else is replicated. Gradients and losses are sums and weights, so the
result does not depend on how many devices there are.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.errors import InputError
from attention_variants.train import flops
from attention_variants.train.settings import Parallel

AXIS = "data"
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of mallopt(3)


class Place(NamedTuple):
    """Puts a batch of numpy arrays on the devices; `multiple` is what its number of rows must be a multiple of."""

    put: Callable
    multiple: int

    def __call__(self, batch):
        return self.put(batch)


class Backend(NamedTuple):
    """How a run uses its devices.

    Attributes:
      place: puts a training batch; place_whole: puts a batch that is evaluated or decoded.
      everywhere: how a state lies on the devices; local: a state as `place_whole`'s computations take it.
      compile: `compile(step, *arguments)` gives (callable, FLOPs of a call over all devices, see `train.flops`).
    """

    place: Place
    place_whole: Place
    everywhere: NamedSharding
    local: Callable
    compile: Callable

    def replicate(self, state):
        """Puts a state on the devices."""
        return jax.device_put(state, self.everywhere)

    def trace(self, make: Callable, *arguments) -> jax.stages.Traced:
        """`make(*arguments)`, which makes a state on the devices, ready to be compiled; its shapes are `out_info`."""
        return jax.jit(make, out_shardings=self.everywhere).trace(*arguments)


def connect(settings: Parallel) -> Backend:
    """The backend of the settings; also has compiled programs and freed memory kept, for the whole process.

    Raises:
      InputError: more devices than there are, or pmap over several hosts.
    """
    if settings.keep_memory:
        _keep_freed_memory()
    if settings.cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(settings.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    available = jax.local_device_count()
    if settings.devices > available:
        raise InputError(f"parallel.devices is {settings.devices}; found {available} {jax.default_backend()} device(s)")
    if settings.backend == "pmap" and jax.process_count() > 1:
        raise InputError("parallel.backend is pmap, which runs on one host; expected jit for a run over several")
    whole = jax.process_count() > 1 or not settings.devices
    devices = jax.devices() if whole else jax.local_devices()[: settings.devices]
    return (_pmap if settings.backend == "pmap" else _jit)(devices)


def _keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next one; only before jax has started its threads does that reach all of them.

    XLA allocates a program's temporary memory anew at every call on a CPU. Given back to the kernel in between, it comes with a
    page fault for every 4 KiB, which is a fifth of the time of a training step.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


def _shardings(devices) -> tuple[NamedSharding, NamedSharding]:
    """How a batch's rows, and how everything else, lie on the devices."""
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())


def _jit(devices) -> Backend:
    rows, everywhere = _shardings(devices)

    def put(batch):
        return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}

    def compiled(step, *arguments):
        shardings = dict(in_shardings=(everywhere, rows, everywhere), out_shardings=everywhere)
        traced = jax.jit(step, donate_argnums=0, **shardings).trace(*arguments)
        return traced.lower().compile(), flops.count(traced.jaxpr)

    place = Place(put, len(devices))
    if jax.process_count() > 1:
        return Backend(place, _one_device(), everywhere, _first_copy, compiled)
    return Backend(place, place, everywhere, lambda tree: tree, compiled)


def _pmap(devices) -> Backend:
    def put(batch):
        return {k: np.reshape(v, (len(devices), -1, *v.shape[1:])) for k, v in batch.items()}

    def compiled(step, *arguments):
        step = functools.partial(step, axis=AXIS)
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices, donate_argnums=0)
        return mapped.lower(*arguments).compile(), flops.count(jax.make_jaxpr(mapped)(*arguments))

    return Backend(Place(put, len(devices)), _one_device(), _shardings(devices)[1], _first_copy, compiled)


def _one_device() -> Place:
    return Place(functools.partial(jax.device_put, device=jax.local_devices()[0]), 1)


def _first_copy(tree):
    """A replicated tree as this process's first device holds it."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)
