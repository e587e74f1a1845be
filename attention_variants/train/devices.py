"""Where arrays live and how the step is compiled: `jit` over a mesh of devices, or `pmap`; both equal one device.

A batch's rows are divided over the devices, everything else is replicated. Gradients and losses are sums and weights, so the
result does not depend on how many devices there are. Lanes, runs that train beside each other in one program, are stacked along a
first axis, which is divided over the devices instead.
"""

import contextlib
import ctypes
import functools
import operator
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.errors import InputError
from attention_variants.train import flops
from attention_variants.train.settings import Parallel

AXIS, LANE = "data", "lane"
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of mallopt(3)


class Place(NamedTuple):
    """Puts a batch of numpy arrays on the devices; `multiple` is what its number of rows must be a multiple of."""

    put: Callable
    multiple: int

    def __call__(self, batch):
        return self.put(batch)


class Program(NamedTuple):
    """A compiled step: `run(state, batches, hypers)`; FLOPs of a call over all devices (`train.flops`); bytes it needs on one,
    or on all that lanes are divided over."""

    run: Callable
    flops: float
    memory: float


class Backend(NamedTuple):
    """How one run, or several lanes, use the devices.

    Attributes:
      place: puts a training batch; place_whole: puts a batch that is evaluated or decoded.
      everywhere: how the state of a run lies on the devices; local: a state as `place_whole`'s computations take it.
      compile: `compile(step, state, batches, hypers)` gives the Program of a step of one run, for all lanes.
      join: what each lane has (a state, a batch, hypers), as `compile`'s program takes it; apart: what each lane gets of that.
    """

    place: Place
    place_whole: Place
    everywhere: NamedSharding
    local: Callable
    compile: Callable
    join: Callable = lambda trees: trees[0]
    apart: Callable = lambda tree: [tree]

    def replicate(self, state):
        """Puts the state of a run on the devices."""
        return jax.device_put(state, self.everywhere)

    def trace(self, make: Callable, *arguments) -> jax.stages.Traced:
        """`make(*arguments)`, which makes the state of a run on the devices, ready to be compiled; its shapes are `out_info`."""
        return jax.jit(make, out_shardings=self.everywhere).trace(*arguments)


def connect(settings: Parallel, lanes: int = 1) -> Backend:
    """The backend of the settings; also has compiled programs and freed memory kept, for the whole process.

    Raises:
      InputError: more devices than there are, or pmap over several hosts, or lanes with either.
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
    if lanes > 1 and (settings.backend == "pmap" or jax.process_count() > 1):
        raise InputError(
            f"{lanes} lanes with parallel.backend={settings.backend} on {jax.process_count()} host(s); expected jit on one"
        )
    whole = jax.process_count() > 1 or not settings.devices
    devices = jax.devices() if whole else jax.local_devices()[: settings.devices]
    if lanes > 1:
        return _lanes(devices, lanes)
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
        return _program(jax.jit(step, donate_argnums=0, **shardings).trace(*arguments))

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
        run = mapped.lower(*arguments).compile()
        return Program(run, flops.count(jax.make_jaxpr(mapped)(*arguments)), _memory(run))

    return Backend(Place(put, len(devices)), _one_device(), _shardings(devices)[1], _first_copy, compiled)


def _lanes(devices, lanes: int) -> Backend:
    """Lanes are padded with copies of the last one to a number that the devices divide."""
    mesh = jax.make_mesh((min(len(devices), lanes),), (LANE,), axis_types=(AxisType.Auto,), devices=devices[:lanes])
    beside, padding = PartitionSpec(LANE), -lanes % mesh.size
    stacked = NamedSharding(mesh, beside)

    def join(trees):
        if isinstance(jax.tree.leaves(trees)[0], jax.ShapeDtypeStruct):
            many = lambda x: jax.ShapeDtypeStruct((lanes + padding, *x.shape), x.dtype, sharding=stacked)
            return jax.tree.map(many, trees[0])
        stack = lambda *of: np.stack([*of, *of[-1:] * padding])
        return jax.device_put(jax.tree.map(stack, *jax.device_get(trees)), stacked)

    def apart(tree):
        tree = jax.device_get(tree)
        return [jax.tree.map(operator.itemgetter(i), tree) for i in range(lanes)]

    def compiled(step, *arguments):
        many = jax.shard_map(jax.vmap(step), mesh=mesh, in_specs=beside, out_specs=beside)
        program = _program(jax.jit(many, donate_argnums=0).trace(*arguments))
        share = lanes / (lanes + padding)  # which is not padding
        return program._replace(flops=program.flops * share, memory=program.memory * mesh.size)

    one = _one_device()
    everywhere = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Backend(Place(lambda batch: batch, 1), one, everywhere, one.put, compiled, join, apart)


def _program(traced: jax.stages.Traced) -> Program:
    run = traced.lower().compile()
    return Program(run, flops.count(traced.jaxpr), _memory(run))


def _memory(run: jax.stages.Compiled) -> float:
    """What the compiler says that a program needs: what it is given, what it makes in between and what it returns."""
    if (found := run.memory_analysis()) is None:
        return 0.0
    needed = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return float(needed - found.alias_size_in_bytes)


def _one_device() -> Place:
    return Place(functools.partial(jax.device_put, device=jax.local_devices()[0]), 1)


def _first_copy(tree):
    """A replicated tree as this process's first device holds it."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)
