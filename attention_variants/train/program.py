"""How programs beside main.py start: flags parsed, a mistake told in one sentence with exit status 2."""

import signal
import sys

from absl import app, flags

from attention_variants.errors import InputError, unknown
from attention_variants.train.cli import fail


def start(main) -> None:
    """Runs `main()` after parsing the flags that were defined before."""

    def guarded(arguments: list[str]):
        try:
            if len(arguments) > 1:
                raise InputError(f"unexpected argument {arguments[1]!r}; expected --flag=value")
            return main()
        except InputError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    app.run(guarded, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        ours = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(arguments[0])]
        fail(str(unknown("flag", error.flagname, ours)))
    except flags.Error as error:
        fail(" ".join(str(error).split()))
