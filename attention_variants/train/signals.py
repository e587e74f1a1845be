"""SIGTERM, Ctrl-C and a terminal that closes, as a wish that is granted when what is in hand is saved."""

import contextlib
import os
import signal
import threading

import jax

STOPPING = "stopping when what is in hand is finished and saved; the same signal again stops at once"


def stopping() -> list[int]:
    """The signals that ask a process to end, but for those that it was told to ignore (by nohup, say)."""
    return [s for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]


def say(sentence: str) -> None:
    """Tells a person, from a handler; where the terminal is gone, all that is said from now on goes nowhere."""
    try:
        os.write(2, f"\n{sentence}\n".encode())
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


@contextlib.contextmanager
def caught(quiet: bool):
    """An event that those signals set, so that the step in hand (the first one, at the start) can be finished and saved."""
    stop = threading.Event()
    # Hosts would stop at different steps. (To count processes would start jax, before `devices.connect` has prepared for it.)
    if threading.current_thread() is not threading.main_thread() or jax.distributed.is_initialized():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in stopping()}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_):
        stop.set()
        restore()  # the next signal does what it always does
        say("" if quiet else STOPPING)

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        restore()
