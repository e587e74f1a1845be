"""Word alignments that people have made: a line of links for each sentence pair, `3-4` where one is sure and `3p4` where possible.

`3?4` is possible, too, and a line may begin with a number of its own and a tab. Words are what white space separates. Which word is
the first, 0 or 1, and which language stands first in a link, no file says: what cannot be right is refused.

The English-French set, 447 sentence pairs of the Canadian parliament (Och and Ney 2000; Mihalcea and Pedersen 2003), is downloaded
on request and not part of this project.
"""

import pathlib
import re

import numpy as np

from attention_variants.data import Pairs, downloads, text_files
from attention_variants.data.links import Gold
from attention_variants.errors import InputError

ENGLISH_FRENCH = ("gold_alignments/enfr.gold", "gold_alignments/enfr.src-tgt")
LINK = re.compile(r"([0-9]{1,9})([-p?])([0-9]{1,9})")
NUMBER = re.compile(r"(?:([0-9]+)\t)?(.*)", re.DOTALL)


def english_french() -> Gold:
    """The English-French set. Raises InputError where a file cannot be had."""
    return read(*map(downloads.fetch, ENGLISH_FRENCH))


def read(
    links: str | pathlib.Path,
    source: str | pathlib.Path,
    target: str | pathlib.Path | None = None,
    *,
    base: int = 1,
    reverse: bool = False,
) -> Gold:
    """The sentence pairs of two files, or of one with `source ||| target` on every line, and their links.

    Args:
      links: the file of links. base: the number of the first word in it, 0 or 1. reverse: whether its links are target-source.

    Raises:
      InputError: as `text_files.read_pairs`; a line without one |||; other numbers of lines, or in front of them; what is no link;
        a link past the end of its sentences, or what shows that links count from the other base, or are the other way round.
    """
    numbers, lines = _numbered(text_files.read_lines(links))
    pairs, own = _sentences(source, target)
    if len(lines) != len(pairs.source):
        counts = f"{links} has {len(lines)} lines and {source} has {len(pairs.source)}"
        raise InputError(f"{counts}; expected as many, line n of one for line n of the other")
    for n, (number, *others) in enumerate(zip(numbers, *own, strict=True), start=1):
        if len(given := {number, *others} - {None}) > 1:
            found = " and ".join(sorted(given))
            raise InputError(f"line {n} of {links} and of its sentences begin with {found}; expected the same number")
    words = [[line.split() for line in side] for side in pairs[:2]]
    gold = Gold(*words, [set() for _ in lines], [set() for _ in lines])
    texts, line_L, ends_L2, sure_L = _links(lines, links)
    order = -1 if reverse else 1
    length_N2 = np.array([(len(s), len(t)) for s, t in zip(*words, strict=True)])
    _refuse(texts, line_L, ends_L2, length_N2[line_L, ::order], base, links)
    for n, (s, t), sure in zip(line_L.tolist(), (ends_L2[:, ::order] - base).tolist(), sure_L, strict=True):
        gold.possible[n].add((s, t))
        if sure:
            gold.sure[n].add((s, t))
    return gold


def _sentences(source, target) -> tuple[Pairs, tuple[list[str | None], ...]]:
    """The sentence pairs, and the numbers in front of the lines of each file."""
    if target is not None:
        pairs = text_files.read_pairs(source, target)
        (ours, source_lines), (theirs, target_lines) = map(_numbered, pairs[:2])
        refused = text_files.refuse_empty
        return Pairs(refused(source_lines, str(source)), refused(target_lines, str(target))), (ours, theirs)
    numbers, lines = _numbered(text_files.read_lines(source))
    sides = [line.split("|||") for line in lines]
    for n, parts in enumerate(sides, start=1):
        if len(parts) != 2 or not all(part.strip() for part in parts):
            raise InputError(f"{source}, line {n}, is not two sentences with ||| between them")
    return Pairs(*map(list, zip(*sides, strict=True))), (numbers,)


def _numbered(lines: list[str]) -> tuple[list[str | None], list[str]]:
    """The number in front of each line, None where there is none, and the rest of it."""
    numbers, rests = zip(*(NUMBER.fullmatch(line).groups() for line in lines), strict=True)
    return list(numbers), list(rests)


def _links(lines: list[str], path) -> tuple[list[str], np.ndarray, np.ndarray, list[bool]]:
    """All links as they are written, the number of the line of each from 0, its two ends, and whether it is sure."""
    written = [(n, text) for n, line in enumerate(lines) for text in line.split()]
    found = [LINK.fullmatch(text) for _, text in written]
    for (n, text), match in zip(written, found, strict=True):
        if match is None:
            raise InputError(f"{path}, line {n + 1}, has {text!r}; expected links such as 3-4, or 3p4 where one is only possible")
    ends_L2 = np.array([(int(match[1]), int(match[3])) for match in found], int).reshape(-1, 2)
    return [text for _, text in written], np.array([n for n, _ in written], int), ends_L2, [match[2] == "-" for match in found]


def _refuse(texts: list[str], line_L, ends_L2, length_L2, base: int, path) -> None:
    """Raises InputError for a link that is not of its sentences' words, with what the whole file seems to be."""
    below_L, past_L = (ends_L2 < base).any(1), (ends_L2 - base >= length_L2).any(1)
    if not (below_L | past_L).any():
        return
    fits = lambda length_L2, base: bool(((ends_L2 >= base) & (ends_L2 - base < length_L2)).all())
    seems = {
        f"it seems to count from {1 - base} (base={1 - base})": below_L.any() or (base == 0 and fits(length_L2, 1)),
        "it seems to be the other way round": fits(length_L2[:, ::-1], base),
        f"expected words from {base} up to the last": True,
    }
    first = int((below_L if below_L.any() else past_L).argmax())
    has = f"{path}, line {line_L[first] + 1}, has the link {texts[first]}, counted from {base}"
    lengths = " and ".join(map(str, length_L2[first]))
    raise InputError(f"{has}, of sentences of {lengths} words; {next(hint for hint, fit in seems.items() if fit)}")
