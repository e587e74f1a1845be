"""BLEU of resampled sentences is sacreBLEU's, and its bootstrap says what sacreBLEU's own does."""

import json

import numpy as np
import pytest
import sacrebleu

from experiments import bleu

WORDS = ["a", "man", "in", "the", "red", "house", "sees", "two", "dogs", "run", "over", "old", "grass", "while", "it", "rains"]


def sentences(count: int, errors: float, seed: int):
    """(answers, references): a reference and itself with some words exchanged."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(count):
        reference = random.choice(WORDS, random.integers(5, 14))
        wrong = random.random(len(reference)) < errors
        rows.append((" ".join(np.where(wrong, random.choice(WORDS, len(reference)), reference)), " ".join(reference)))
    return rows


def counted(tmp_path, rows):
    lines = [json.dumps({"source": "x", "reference": reference, "answer": answer}) for answer, reference in rows]
    (tmp_path / bleu.ANSWERS).write_text("\n".join(lines) + "\n")
    return bleu.counts(tmp_path)


def test_summed_counts_are_the_corpus_score(tmp_path):
    for errors in (0.0, 0.3, 1.0):
        rows = sentences(37, errors, seed=1)
        answers, references = zip(*rows, strict=True)
        expected = sacrebleu.BLEU().corpus_score(answers, [references]).score
        assert bleu.score(counted(tmp_path, rows).sum(0)) == pytest.approx(expected, rel=1e-12)


def test_an_interval_is_that_of_sacrebleus_own_bootstrap(tmp_path):
    rows = sentences(101, 0.3, seed=2)
    answers, references = zip(*rows, strict=True)
    theirs = sacrebleu.BLEU().corpus_score(answers, [references], n_bootstrap=1000)
    ((low, high, p),) = bleu.bootstrap([[counted(tmp_path, rows)]])
    assert (high + low) / 2 == pytest.approx(theirs._mean, abs=0.15 * theirs._ci)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.15)
    assert np.isnan(p)


def test_a_cell_is_told_from_the_baseline_where_it_is_better(tmp_path):
    """Two seeds each; the same errors are the baseline itself, fewer of them are better."""
    of = lambda errors: [counted(tmp_path, sentences(101, errors, seed)) for seed in (3, 4)]
    base, same, better = bleu.bootstrap([of(0.3), of(0.3), of(0.1)])
    assert same.p == 1
    assert better.p <= 0.01
    assert base[:2] == same[:2] < better[:2]
