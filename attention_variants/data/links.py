"""Links between the words of sentence pairs: how right they are, what takes no reading to find, and two directions made one.

A link is (source word, target word), both counted from 0; the links of a corpus are a set for each of its sentence pairs.
"""

import math
from collections.abc import Sequence, Set
from typing import NamedTuple

Links = Set[tuple[int, int]]


class Gold(NamedTuple):
    """Sentence pairs whose right links are known.

    Attributes:
      source, target: the words of each sentence. sure, possible: the links of each pair; what is sure is also possible.
    """

    source: list[list[str]]
    target: list[list[str]]
    sure: list[Links]
    possible: list[Links]


def flipped(links: Sequence[Links]) -> list[Links]:
    """The links of each pair with source and target exchanged."""
    return [{(t, s) for s, t in of} for of in links]


def other_way(gold: Gold) -> Gold:
    """Of translating target to source."""
    return Gold(gold.target, gold.source, flipped(gold.sure), flipped(gold.possible))


class Counts(NamedTuple):
    """How many links of a corpus are what; rates are of these sums, not means over sentences (Och and Ney 2003).

    Attributes:
      found: |A|, the links that are judged. sure: |S|. found_possible: |A ∩ P|. found_sure: |A ∩ S|.
    """

    found: float
    sure: float
    found_possible: float
    found_sure: float

    @property
    def precision(self) -> float:
        """|A ∩ P| / |A|; nan where no link is found."""
        return self.found_possible / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        """|A ∩ S| / |S|; nan where no link is sure."""
        return self.found_sure / self.sure if self.sure else math.nan

    @property
    def error_rate(self) -> float:
        """AER = 1 − (|A ∩ S| + |A ∩ P|) / (|A| + |S|); where all that is possible is sure, 1 − F₁. nan where there is no link."""
        both = self.found + self.sure
        return 1 - (self.found_sure + self.found_possible) / both if both else math.nan


def count(found: Sequence[Links], gold: Gold) -> Counts:
    """The counts of the links found in all sentence pairs. Raises ValueError where there are more or fewer of these in gold."""
    if len(found) != len(gold.sure):
        raise ValueError(f"links of {len(found)} sentence pairs; expected {len(gold.sure)}, as there are in gold")
    rows = zip(found, gold.sure, gold.possible, strict=True)
    return Counts(*map(sum, zip(*((len(a), len(s), len(a & p), len(a & s)) for a, s, p in rows), strict=True)))


def bounds(gold: Gold) -> dict[str, Counts]:
    """What any result stands between: two floors and a ceiling.

    `random`: every target word has a source word at random; the expected counts, in closed form. `diagonal`: it has the one in the
    same place. `oracle`: it has a right one, a sure one before a possible one, or none where there is no right one; nothing with
    one link for a target word is better.
    """
    lengths = [(len(source), len(target)) for source, target in zip(gold.source, gold.target, strict=True)]
    hit = lambda right: sum(len(links) / source for links, (source, _) in zip(right, lengths, strict=True))
    words, sure = sum(target for _, target in lengths), sum(map(len, gold.sure))
    return {
        "random": Counts(words, sure, hit(gold.possible), hit(gold.sure)),
        "diagonal": count([diagonal(*pair) for pair in lengths], gold),
        "oracle": count([oracle(*pair) for pair in zip(gold.sure, gold.possible, strict=True)], gold),
    }


def diagonal(source: int, target: int) -> Links:
    """Links of each of so many target words with the source word that its middle falls into, were both sentences equally long."""
    return {((2 * t + 1) * source // (2 * target), t) for t in range(target)}


def oracle(sure: Links, possible: Links) -> Links:
    """The right link of each target word that has one, a sure one where there is one; of several the last."""
    of_target = {t: s for s, t in sorted(possible)} | {t: s for s, t in sorted(sure)}
    return {(s, t) for t, s in of_target.items()}


def grow_diagonal(forward: Links, backward: Links) -> Links:
    """The links that both directions have, and from there, step by step, those of one that touch at a corner.

    A link is added only if both of its words have none yet, so of the eight neighbours of a link only the four on its diagonals
    can be. Where two new ones want the same word the one nearer to the beginning of the sentences wins; with that the result is
    the same whichever language is called the source. Moses adds a neighbour if either word has no link yet, which gives more.
    """
    links, union = set(forward & backward), forward | backward
    while near := _free(union & {(s + a, t + b) for s, t in links for a in (-1, 1) for b in (-1, 1)}, links):
        links |= near
    return links


def grow_diagonal_final(forward: Links, backward: Links) -> Links:
    """`grow_diagonal`, and then what `forward`, and after it `backward`, has for two words without a link.

    Moses calls this grow-diag-final-and; its grow-diag-final adds what has one such word.
    """
    links = grow_diagonal(forward, backward)
    links |= _free(forward, links)
    return links | _free(backward, links)


def _free(more: Links, links: Links) -> Links:
    """Those of `more` whose two words are in none of `links`, nor in another of them that is nearer to the beginning."""
    sources, targets, free = {s for s, _ in links}, {t for _, t in links}, set()
    for s, t in sorted(more):  # of two with a common word the same comes first whichever language is called the source
        if s not in sources and t not in targets:
            free.add((s, t))
            sources.add(s)
            targets.add(t)
    return free


# How the links of a source-to-target and those of a target-to-source model are made one, both as (source word, target word).
SYMMETRISED = {
    "intersection": lambda forward, backward: forward & backward,
    "union": lambda forward, backward: forward | backward,
    "grow_diagonal": grow_diagonal,
    "grow_diagonal_final": grow_diagonal_final,
}
