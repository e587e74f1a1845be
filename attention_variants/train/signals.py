"""SIGTERM and Ctrl-C, as a wish that is granted when what is in hand is saved."""

import contextlib
import os
import signal
import threading

import jax


@contextlib.contextmanager
def caught(quiet: bool):
    """An event that SIGTERM and Ctrl-C set, so that the step in hand (the first one, at the start) can be finished and saved."""
    stop = threading.Event()
    # Hosts would stop at different steps. (To count processes would start jax, before `devices.connect` has prepared for it.)
    if threading.current_thread() is not threading.main_thread() or jax.distributed.is_initialized():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_):
        stop.set()
        restore()  # the next signal does what it always does
        if not quiet:
            os.write(2, b"\nstopping when what is in hand is finished and saved; the same signal again stops at once\n")

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        restore()
