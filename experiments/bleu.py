"""How sure a BLEU is of its sentences: the paired bootstrap (Koehn 2004), over seeds together.

A resample draws as many test sentences as there are, with replacement, the same ones for every seed and every cell; its number is
the mean over seeds of the BLEU of those sentences. What varies is the test set; what varies over seeds, the table's other intervals
show.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sacrebleu

from attention_variants.train.runs import ANSWERS

RESAMPLES = 1000
ORDERS = 4  # n-grams


class Sentences(NamedTuple):
    """A 95 % interval of BLEU over the test sentences, and the p value of no difference to the baseline (nan for itself)."""

    low: float
    high: float
    p: float


def counts(workdir: pathlib.Path) -> np.ndarray:
    """(N, 10) of the N test sentences of a run: n-grams that match and that there are, for n of 1 to 4; lengths of both sides."""
    scorer = sacrebleu.BLEU(effective_order=True)  # says nothing of the counts, and spares a warning for each sentence
    rows = map(json.loads, filter(None, (workdir / ANSWERS).read_text().split("\n")))
    scores = (scorer.sentence_score(row["answer"], [row["reference"]]) for row in rows)
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores])


def score(summed: np.ndarray) -> float:
    """The corpus BLEU of summed counts."""
    correct, total = summed[:ORDERS].tolist(), summed[ORDERS : 2 * ORDERS].tolist()
    return sacrebleu.BLEU.compute_bleu(correct, total, int(summed[-2]), int(summed[-1]), smooth_method="exp").score


def bootstrap(cells: Sequence[Sequence[np.ndarray]], seed: int = 0) -> list[Sentences]:
    """What sentences say of each cell, the first being the baseline.

    Args:
      cells: of each cell, the counts (N, 10) of each of its seeds.
    """
    sentences = len(cells[0][0])
    draws_RN = np.random.default_rng(seed).multinomial(sentences, np.full(sentences, 1 / sentences), size=RESAMPLES)
    found = []
    for seeds in cells:
        scores = [[score(summed) for summed in draws_RN @ counts_N] for counts_N in seeds]
        found.append(np.mean(scores, axis=0))
    lines = []
    for draws in found:
        difference = draws - found[0]
        beyond = min((difference <= 0).mean(), (difference >= 0).mean())
        p = float("nan") if draws is found[0] else min(1.0, 2 * max(beyond, 1 / RESAMPLES))
        lines.append(Sentences(*np.percentile(draws, [2.5, 97.5]).tolist(), p))
    return lines
