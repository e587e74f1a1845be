"""Laws of the translation task: its loss and scores by hand, and that neither depends on how sentences are batched."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from attention_variants.data import Pairs
from attention_variants.data.bleu import corpus
from attention_variants.data.tokens import PAD
from attention_variants.figures import heatmaps
from attention_variants.tasks import translation
from attention_variants.train import step


def with_task(settings, **changes):
    return dataclasses.replace(settings, task=dataclasses.replace(settings.task, **changes))


def pairs_of(task, split: str) -> Pairs:
    return task.source.read(task.data, split)


def rows_of(task, sentences: list[str]) -> list[list[int]]:
    return [row.tolist() for row in task.vocabulary.encode(sentences)]


def log_probabilities(task, params, batch) -> np.ndarray:
    """log softmax of the model's logits (B, T, V), in float64 numpy."""
    logits = np.asarray(jax.jit(task.model.apply)({"params": params}, batch["source"], batch["target"]), np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def always(loaded, token: int):
    """Parameters whose most probable token is always `token`: nothing but a bias after the last norm, and its embedding."""
    params = jax.tree.map(jnp.zeros_like, loaded.params)
    params["embedding"]["embedding"] = params["embedding"]["embedding"].at[token].set(1.0)
    params["decoder_0"]["feed_forward_residual"]["norm"]["bias"] += 1.0
    return params


def test_the_loss_of_evaluate_is_the_mean_over_target_tokens(task, loaded, place):
    """Per token and not per sentence, END included, padding not."""
    batch = next(iter(task.batches("validation", seed=None, batch_tokens=10_000, max_padding=1.0)))
    log_p = log_probabilities(task, loaded.params, batch)
    rows = rows_of(task, pairs_of(task, "validation").target)
    assert len(batch["id"][batch["source"].any(1)]) == len(rows) == 20
    total = -sum(log_p[at, t, token] for at, i in enumerate(batch["id"][:20]) for t, token in enumerate(rows[i]))
    wanted = total / sum(map(len, rows))
    found, _ = task.evaluate(loaded.params, {}, "validation", place)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(wanted), rel=1e-4)


def test_bleu_and_exact_match_are_those_of_the_predictions(task, loaded, place):
    """The perfect scores of a split that is what the model says, and sacreBLEU's own score of one that is half of it."""
    pairs = pairs_of(task, "validation")
    said, _ = task.predict(loaded.params, {}, pairs.source, place)
    words = [f"a b c d {line[:4]} e f" for line in said]
    assert task.vocabulary.decode(task.vocabulary.encode(said)) == said
    bleu, signature = corpus(words, words)
    assert bleu == pytest.approx(100)
    assert "tok:13a" in signature
    assert "case:mixed" in signature
    found, _ = task.evaluate(loaded.params, {}, "validation", place)
    assert found["bleu"] == sacrebleu.corpus_bleu(said, [pairs.target]).score
    assert found["exact_match"] == np.mean([a == b for a, b in zip(said, pairs.target, strict=True)])
    references = [w if n % 2 else w + " and so on" for n, w in enumerate(words)]
    assert corpus(words, references)[0] == sacrebleu.corpus_bleu(words, [references]).score
    assert corpus([w.upper() for w in words], words)[0] < 90


def test_exact_match_counts_the_sentences_that_are_right(task, loaded, place, monkeypatch):
    """A quarter of the references replaced by what the model says is a quarter right."""
    pairs = pairs_of(task, "validation")
    said, _ = task.predict(loaded.params, {}, pairs.source, place)
    references = [a if n % 4 == 0 else "?" for n, a in enumerate(said)]
    monkeypatch.setattr(task.source, "read", lambda config, split: Pairs(pairs.source, references))
    again = translation.Task.saved(loaded.settings, loaded.workdir)
    assert again.evaluate(loaded.params, {}, "validation", place)[0]["exact_match"] == 0.25


def test_predictions_are_in_the_order_of_the_lines_whatever_the_batching(task, loaded, place):
    """Each line's translation is the one it gets alone: other lines, their order and the batch's shape change nothing."""
    lines = pairs_of(task, "train").source[:31]
    together, remarks = task.predict(loaded.params, {}, lines, place)
    alone = [task.predict(loaded.params, {}, [line], place) for line in lines[:3]]
    assert together[:3] == [answers[0] for answers, _ in alone]
    assert task.predict(loaded.params, {}, lines[::-1], place) == (together[::-1], remarks)
    assert len(set(together)) > 3


def test_packed_and_bucketed_an_epoch_has_the_same_loss_and_gradients(settings, loaded):
    sums = []
    for packed in (False, True):
        task = translation.Task.saved(with_task(settings, packed=packed, batch_tokens=512), loaded.workdir)
        loss = jax.jit(jax.value_and_grad(lambda params, batch, task=task: task.loss(params, {}, batch, None, {})[0]))
        batches = list(task.batches("train", seed=0))
        assert sum(map(task.tokens, batches)) == task._training_tokens().lengths().sum()
        assert ("source_segment" in batches[0]) == packed
        parts = [loss(loaded.params, batch) for batch in batches]
        sums.append(jax.tree.map(lambda *x: np.sum(np.asarray(x, np.float64), 0), *parts))
    (value, grads), (packed_value, packed_grads) = sums
    assert packed_value == pytest.approx(value, rel=1e-5)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), packed_grads, grads)


@pytest.mark.parametrize("search", [dict(beams=1), dict(beams=3), dict(temperature=0.9, top_p=0.95)], ids=str)
def test_neither_scores_nor_predictions_depend_on_decode_tokens(settings, loaded, place, search):
    tasks = [translation.Task.saved(with_task(settings, decode_tokens=n, **search), loaded.workdir) for n in (64, 1024)]
    first, second = (task.evaluate(loaded.params, {}, "validation", place)[0] for task in tasks)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert {k: first[k] for k in ("bleu", "exact_match", "unfinished")} == {
        k: second[k] for k in ("bleu", "exact_match", "unfinished")
    }
    lines = pairs_of(tasks[0], "train").source[:31]
    assert tasks[0].predict(loaded.params, {}, lines, place) == tasks[1].predict(loaded.params, {}, lines, place)


def test_drawn_translations_depend_on_the_seed_and_are_greedy_in_the_cold(settings, loaded, place):
    lines = pairs_of(loaded.task, "train").source[:7]

    def said(temperature, seed):
        run = dataclasses.replace(settings.run, seed=seed)
        changed = dataclasses.replace(with_task(settings, temperature=temperature), run=run)
        return translation.Task.saved(changed, loaded.workdir).predict(loaded.params, {}, lines, place)[0]

    assert said(1.0, 0) == said(1.0, 0)
    assert said(1.0, 0) != said(1.0, 1)
    assert said(1e-5, 0) == said(0.0, 0)


def test_beams_translate_otherwise_than_one(settings, loaded, place):
    lines = pairs_of(loaded.task, "train").source[:31]
    one, three = (translation.Task.saved(with_task(settings, beams=n), loaded.workdir) for n in (1, 3))
    assert one.predict(loaded.params, {}, lines, place)[0] != three.predict(loaded.params, {}, lines, place)[0]


def test_answers_that_reach_the_limit_of_twice_the_source_and_ten_are_counted(task, loaded, place):
    """A model that always says "1" is cut at the limit of its own source, whatever stands beside it in the batch."""
    (one,) = set(rows_of(task, ["1"])[0][1:-1])
    lines = ["1 May 1999", "Saturday, the 23rd of September 1978"]
    answers, remarks = task.predict(always(loaded, one), {}, lines, place)
    assert answers == ["1" * (2 * len(row) + 10) for row in rows_of(task, lines)]
    assert len(remarks) == 1
    assert remarks[0].startswith("2 of 2 ")


def test_a_model_that_would_say_padding_still_has_answers_and_figures(task, loaded, place, tmp_path):
    params = always(loaded, PAD)
    assert len(task.predict(params, {}, ["1 May 1999"], place)[0]) == 1
    assert all(path.exists() for path in task.figures(params, {}, place, tmp_path))


def test_the_loss_without_a_key_is_deterministic_and_neither_drops_nor_smooths(task, loaded, place):
    batch = place(task.batches("train", seed=0, multiple=8)[0])
    hypers = {"dropout": jnp.float32(0.5), "attention_dropout": jnp.float32(0.5), "label_smoothing": jnp.float32(0.3)}
    none = {name: jnp.float32(0) for name in hypers}
    loss = jax.jit(lambda key, hypers: task.loss(loaded.params, {}, batch, key, hypers)[:2])
    total, weight = loss(None, hypers)
    assert float(total) == float(loss(None, none)[0])
    assert float(total) == pytest.approx(float(loss(jax.random.key(0), none)[0]), rel=1e-6)
    assert float(weight) == int((np.asarray(batch["target"]) != PAD).sum())
    for name in hypers:
        noisy = {float(loss(jax.random.key(k), none | {name: hypers[name]})[0]) for k in (0, 0, 1)}
        assert float(total) not in noisy
        assert len(noisy) == (1 if name == "label_smoothing" else 2)


def test_label_smoothing_mixes_in_the_uniform_distribution(task, loaded, place):
    """−Σ_v p_v log softmax_v with p = (1 − ε) one-hot + ε / V, by hand."""
    batch = task.batches("train", seed=0, multiple=8)[0]
    log_p = log_probabilities(task, loaded.params, batch)
    label = np.take_along_axis(log_p, batch["target"][..., None], -1)[..., 0]
    wanted = -((0.9 * label + 0.1 * log_p.mean(-1)) * (batch["target"] != PAD)).sum()
    hypers = {"dropout": jnp.float32(0), "attention_dropout": jnp.float32(0), "label_smoothing": jnp.float32(0.1)}
    loss = jax.jit(lambda batch: task.loss(loaded.params, {}, batch, jax.random.key(0), hypers)[0])
    assert float(loss(place(batch))) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_drops_the_same_whatever_batch_it_is_in(settings, loaded, place, packed):
    """Dropout belongs to the example, or to the row that holds several: the losses of a batch's halves add up to the batch's."""
    task = translation.Task.saved(with_task(settings, packed=packed), loaded.workdir)
    batch = task.batches("train", seed=0, multiple=8)[0]
    hypers = {"dropout": jnp.float32(0.4), "attention_dropout": jnp.float32(0.4), "label_smoothing": jnp.float32(0.0)}
    loss = jax.jit(lambda batch: task.loss(loaded.params, {}, batch, jax.random.key(3), hypers)[0])
    whole, even, odd = (float(loss(place({k: v[rows] for k, v in batch.items()}))) for rows in np.s_[:, ::2, 1::2])
    assert even + odd == pytest.approx(whole, rel=1e-5)
    others = float(loss(place(batch | {"id": batch["id"] + 1000})))
    assert others != pytest.approx(whole, rel=1e-5)
    twins = {k: np.repeat(v[:1], 8, axis=0) for k, v in batch.items()}
    assert float(loss(place(twins))) != pytest.approx(float(loss(place(twins | {"id": np.arange(8, dtype=np.uint32)}))), rel=1e-5)


def test_pairs_that_are_too_long_are_left_out_of_training_and_counted(settings):
    task = translation.Task.new(with_task(settings, max_length=16))
    long = sum(len(row) > 16 for row in rows_of(task, pairs_of(task, "train").source))
    assert 0 < long < 400
    assert re.search(rf"\b{400 - long} training pairs; {long} left out with more than 16 tokens", task.describe())
    batches = list(task.batches("train", seed=0))
    assert sum((batch["source"] != PAD).any(1).sum() for batch in batches) == 400 - long
    assert max((batch["source"] != PAD).sum(1).max() for batch in batches) == 16


@pytest.mark.parametrize("split", ["validation", "test"])
def test_nothing_is_left_out_of_validation_and_test(settings, loaded, place, split):
    """The scores of a split do not know the limit of training."""
    short, long = (translation.Task.saved(with_task(settings, max_length=n), loaded.workdir) for n in (16, 100))
    assert max(map(len, rows_of(short, pairs_of(short, split).source))) > 16
    assert short.evaluate(loaded.params, {}, split, place) == long.evaluate(loaded.params, {}, split, place)


def test_lines_longer_than_training_are_counted_and_the_first_is_named(settings, loaded, place):
    task = translation.Task.saved(with_task(settings, max_length=12), loaded.workdir)
    lines = ["1 May 1999", "the 1st of May, 1999", "2 May 1999", "the 2nd of May, 1999"]
    answers, remarks = task.predict(loaded.params, {}, lines, place)
    assert len(answers) == 4
    assert "2 of 4 lines are longer than the 12 tokens of training (first: line 2)" in remarks[0]


def test_the_vocabulary_is_of_the_training_split_only(settings):
    """Its characters, those of source and target, and no other."""
    task = translation.Task.new(settings)
    pairs = pairs_of(task, "train")
    assert set("".join(task.vocabulary.pieces(range(4, len(task.vocabulary))))) == set("▁".join(pairs.source + pairs.target)) - {
        " "
    }


def test_figures_are_one_heatmap_per_attention_layer(task, loaded, place, tmp_path):
    paths = task.figures(loaded.params, {}, place, tmp_path)
    assert sorted(p.name for p in paths) == [
        "decoder_0_cross_attention.png",
        "decoder_0_self_attention.png",
        "encoder_0_self_attention.png",
    ]
    assert all(p.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for p in paths)


def test_the_axes_of_a_heatmap_are_the_tokens_that_attend_and_are_attended(task, loaded, place, tmp_path, monkeypatch):
    """A sentence of about twenty tokens; the decoder reads what stands before each token it writes."""
    drawn = {}
    monkeypatch.setattr(
        heatmaps, "draw", lambda path, weights, rows, columns, title: drawn.update({title: (weights, rows, columns)})
    )
    task.figures(loaded.params, {}, place, tmp_path)
    weights, written, source = drawn["decoder 0 cross attention"]
    assert weights.shape[1:] == (len(written), len(source))
    first = rows_of(task, pairs_of(task, "validation").source[:20])
    assert len(source) == min(map(len, first), key=lambda length: abs(length - 20))
    assert drawn["encoder 0 self attention"][1:] == (source, source)
    assert drawn["decoder 0 self attention"][1:] == (written, ["<s>", *written[:-1]])


def test_answers_stand_beside_their_references(task, loaded, place):
    pairs = pairs_of(task, "validation")
    _, answers = task.evaluate(loaded.params, {}, "validation", place)
    assert [a["source"] for a in answers] == pairs.source
    assert [a["reference"] for a in answers] == pairs.target
    assert [a["answer"] for a in answers] == task.predict(loaded.params, {}, pairs.source, place)[0]


def test_parameters_depend_on_the_seed_only(task):
    a, b, c = (task.init(step.key_for(seed, step.INIT))[0] for seed in (0, 0, 1))
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))
    assert not all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, c)))
