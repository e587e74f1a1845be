"""Reading a person's text files, and saying clearly what is wrong with them."""

import gzip
import pathlib
import zlib

from attention_variants.data import Pairs
from attention_variants.errors import InputError


def read_lines(path: str | pathlib.Path) -> list[str]:
    """The lines of a UTF-8 file, plain or gzip, without their ends.

    Raises:
      InputError: no such file, an empty one, a broken gzip file, or a line that is not UTF-8 (file and line number).
    """
    path = pathlib.Path(path).expanduser()
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return split_lines(raw, str(path))


def split_lines(raw: bytes, name: str) -> list[str]:
    """The lines of UTF-8 bytes; `name` is what messages call them. Raises InputError as `read_lines`."""
    if not raw.strip():
        raise InputError(f"{name} is empty; expected lines")
    lines = []
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            raise InputError(f"{name}, line {number}, is not UTF-8 (byte {error.start + 1}); expected UTF-8, see iconv") from None
    return lines


def refuse_empty(lines: list[str], name: str) -> list[str]:
    """`lines`, none of which may be empty. Raises InputError that names the first empty one."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise InputError(f"{name}, line {number}, is empty; expected a sentence on every line")
    return lines


def read_pairs(source: str | pathlib.Path, target: str | pathlib.Path) -> Pairs:
    """Two line-aligned files. Raises InputError as `read_lines`, for an empty line, and for different numbers of lines."""
    ours, theirs = read_lines(source), read_lines(target)
    if len(ours) != len(theirs):
        counts = f"{source} has {len(ours)} lines and {target} has {len(theirs)}"
        raise InputError(f"{counts}; expected as many, line n of one for line n of the other")
    return Pairs(refuse_empty(ours, str(source)), refuse_empty(theirs, str(target)))
