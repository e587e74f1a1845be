"""The program around the library: flags to calls, mistakes to one sentence and exit status 2."""

import difflib
import gc
import json
import logging
import os
import pathlib
import re
import sys
import threading

import absl.logging
import jax
from absl import flags

from attention_variants.data import text_files
from attention_variants.errors import InputError, unknown
from attention_variants.train import runs


def parse(argv: list[str]) -> list[str]:
    """Parses flags as absl does, except that what is wrong with them is one sentence on standard error and exit status 2."""
    try:
        rest = flags.FLAGS(argv)
        if named := next(filter(None, map(re.compile(r"--?config\.\w+\.name\b").match, argv)), None):
            raise InputError(
                f"{named[0]} cannot be changed; names are pieces of the config string, --config=FILE.py:data=…,variant=…"
            )
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}; expected --flag=value")
        config = flags.FLAGS["config"].value
        if config is not None:
            config.lock()  # a config file that was not found raises at the first touch
        return rest
    except Exception as error:  # absl, ml_collections and config files each raise their own
        fail(_sentence(error, argv))


def fail(sentence: str):
    """Prints the sentence and exits with status 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str]) -> None:
    """One of train, evaluate and predict, as the flags say."""
    del argv
    prepare()
    try:
        _main(flags.FLAGS)
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:  # the second Ctrl-C; the first one saves
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare() -> None:
    """What a process that trains wants, whoever starts it: libraries that are quiet, and a garbage collector that rests."""
    gc.freeze()  # what is imported stays: tracing a step would have the garbage collector look at all of it again and again
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # which back ends are not there is no news
    absl.logging.set_verbosity(absl.logging.FATAL)  # orbax tells its life story there, and prints what it also raises
    _silence_closed_loops()


def _main(given) -> None:
    if not given.workdir:
        raise InputError("--workdir is missing; expected the folder of the run, --workdir=runs/NAME")
    if given.mode == "train" and given.config is None:
        raise InputError("--config is missing; expected a config file, --config=configs/translation.py")
    if given.mode != "train" and given.config is not None:
        raise InputError(f"--config is for training, and {given.workdir} has its own; expected --change=section.key=value")
    if given.mode == "train" and given.change:
        raise InputError(f"--change is for evaluate and predict; expected --config.{given.change[0]} for a new run")
    if given.multihost:
        jax.distributed.initialize()
    if given.mode == "train":
        from attention_variants.train import loop  # orbax and grain take a second to import, and mistakes are told without them

        gc.freeze()  # of these too, see `prepare`
        results = loop.train(given.config, given.workdir).results
        if results is not None:
            print(json.dumps({split: results[split] for split in ("validation", "test") if split in results}))
        return
    run = runs.Loaded(given.workdir, _tell, given.change)
    if given.mode == "evaluate":
        print(json.dumps(run.evaluate(given.split or ("test" if "test" in run.task.splits else "validation"))))
        return
    answers, remarks = run.predict(_lines(given.input))
    for remark in remarks:
        _tell(remark)
    print("\n".join(answers), flush=True)


def _silence_closed_loops() -> None:
    """When a disk is full, threads of tensorstore still call an event loop that orbax has closed, and print that they could not.

    The error itself is raised by `Checkpoints.save` or `wait`; everything else that a thread prints is printed as ever.
    """
    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def unless_closed(hook, of):
        return lambda *args: None if "Event loop is closed" in str(of(args)) else hook(*args)

    sys.excepthook = unless_closed(sys.excepthook, lambda args: args[1])
    sys.unraisablehook = unless_closed(sys.unraisablehook, lambda args: args[0].exc_value)
    threading.excepthook = unless_closed(threading.excepthook, lambda args: args[0].exc_value)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _lines(path: str) -> list[str]:
    """The sentences of a file, or of standard input."""
    if path != "-":
        return text_files.refuse_empty(text_files.read_lines(path), path)
    if sys.stdin.isatty():
        _tell("reading sentences, one a line, until Ctrl-D")
    name = "standard input"
    return text_files.refuse_empty(text_files.split_lines(sys.stdin.buffer.read(), name), name)


def _sentence(error: Exception, argv: list[str]) -> str:
    """What ml_collections and absl say in many lines, in one."""
    text = str(error).strip()
    if "Error whilst parsing config file" in text:  # a traceback as text, its last line is what the config file raised
        return re.sub(r"^[\w.]+(Error|Exception): ", "", text.splitlines()[-1])
    if isinstance(error, OSError) and "config file" in text:
        name = flags.FLAGS["config"].config_filename
        file, dot, pieces = name.partition(".py")
        if os.path.exists(file + dot) and pieces:
            return f"cannot load the config file {name!r}; expected {file}.py:{pieces[1:]}, with a colon before the pieces"
        found = [str(path) for path in sorted(pathlib.Path("configs").rglob("*.py")) if path.stem not in ("__init__", "common")]
        near = difflib.get_close_matches(file + dot, found, n=1, cutoff=0.5) or ["a file such as configs/translation.py"]
        return f"cannot load the config file {file + dot!r}; expected {near[0]}"
    if "has no attribute 'get_config'" in text:
        return "the file of --config defines no get_config; expected a file such as configs/translation.py"
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
        setting = error.flagname.removeprefix("config.")
        return (
            f"--{error.flagname} has no --config=FILE.py before it; expected that, or --change={setting}=… for evaluate and predict"
        )
    if isinstance(error, flags.UnrecognizedFlagError):
        ours = {"config", *(flag.name for flag in flags.FLAGS.get_key_flags_for_module(argv[0]))}
        return str(unknown("flag", error.flagname.partition(".")[0], ours))
    if isinstance(error, AttributeError | KeyError):
        return _unknown_key(argv) or " ".join(text.split())
    return " ".join(text.split())


def _unknown_key(argv: list[str]) -> str | None:
    """The sentence for the first override whose key the config does not have."""
    file = next(flag.partition("=")[2] for flag in argv if re.match(r"--?config=", flag))
    config = flags.FLAGS["config"].parser.parse(file)
    for flag in argv:
        override, node = re.match(r"--?(?:no)?config\.([\w.]+)", flag), config
        for key in override[1].split(".") if override else ():
            keys = list(node.keys()) if hasattr(node, "keys") else ["(it has no keys)"]
            if key not in keys:
                return str(unknown(f"config key in {override[0]}:", key, keys))
            node = node[key]
    return None
