"""Laws of classification: its numbers by hand, no sentence lost or wrongly learned from, and lanes that are folds."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from attention_variants.data import tsv_file
from attention_variants.data.tokens import PAD
from attention_variants.errors import InputError
from attention_variants.figures import confusion
from attention_variants.models.heads import trace_weights
from attention_variants.tasks.classification import Config, Hypers, Task
from attention_variants.train import loop, runs
from attention_variants.train import settings as settings_lib

N, LONG = 103, (0, 50)
WORDS = ("ape", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of 103 sentences of one to six words, and a word of their own; their class is that of the first word; two are long."""
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("table") / "animals.tsv"
    places = [draw.integers(0, 7, 19 if n in LONG else draw.integers(1, 7)) for n in range(N)]
    lines = [" ".join(WORDS[i] for i in row) + f" n{n}\t{'abc'[row[0] % 3]}\n" for n, row in enumerate(places)]
    path.write_text("text\tlabel\n" + "".join(lines))
    return path


@pytest.fixture(scope="module")
def config_of(table):
    """`config_of(**changes)`: the tiny config on that file, of words, one batch shape, thirty steps."""

    def make(**changes):
        from configs import classification

        config = classification.get_config("data=tsv_file,tiny")
        config.data.train = str(table)
        config.parallel.devices = 1
        config.task.update(tokens="words", least=1, max_padding=1.0, max_length=13)
        config.run.update(duration="30 steps", evaluate="15 steps", checkpoint="15 steps")
        config.hypers.update(learning_rate=2e-2, dropout=0.1)
        config.log.update(every="1 steps", tensorboard=False)
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="module")
def new(config_of):
    """`new(**changes)`: the task of that config."""
    return lambda **changes: Task.new(settings_lib.parse(config_of(**changes)))


@pytest.fixture(scope="module")
def trained(config_of, tmp_path_factory):
    """(workdir, results) of a run on fold 3."""
    workdir = tmp_path_factory.mktemp("classified") / "run"
    return workdir, loop.train(config_of(**{"run.seed": 3}), workdir, quiet=True).results


@pytest.fixture(scope="module")
def loaded(trained):
    return runs.Loaded(trained[0], print)


def test_numbers_are_those_of_the_predictions(loaded):
    """Accuracy and macro-F1 are scikit-learn's; answers stand beside their references and are what `predict` says; floors once."""
    for split in ("validation", "test"):
        numbers, answers = loaded.task.evaluate(loaded.params, {}, split, loaded.place)
        said, labels = [row["answer"] for row in answers], [row["reference"] for row in answers]
        assert numbers["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
        assert numbers["macro_f1"] == pytest.approx(metrics.f1_score(labels, said, average="macro"))
        assert said == loaded.task.predict(loaded.params, {}, [row["source"] for row in answers], loaded.place)[0]
        assert len(set(said)) > 1
        floors = {name for name in numbers if name.startswith("floor")}
        assert floors == ({"floor_majority", "floor_bag_of_tokens", "floor_last_word"} if split == "test" else set())


def test_floors_are_learned_from_the_training_sentences_of_the_fold(new, table):
    """Where the class is that of the last word, before a full stop and END, one floor is perfect and the others are not."""
    draw, path = np.random.default_rng(1), table.with_name("floors.tsv")
    rows = [draw.choice(WORDS, 3) for _ in range(90)]
    path.write_text("text\tlabel\n" + "".join(f"{' '.join(row)} .\t{'ba'[row[2] in WORDS[:3]]}\n" for row in rows))
    task = new(**{"data.train": str(path)})
    floors, split, label_N = task._floors(7, "test"), task._split(7), task._labelled().label_N
    assert floors["floor_last_word"] == 1
    assert floors["floor_bag_of_tokens"] < 1
    assert floors["floor_majority"] == np.mean(label_N[split.test] == np.bincount(label_N[split.train]).argmax())
    unseen = new()._floors(7, "test")  # each sentence ends with a word of its own
    assert unseen["floor_last_word"] == unseen["floor_majority"] < 1


def test_the_loss_of_evaluate_is_that_of_training_without_noise(loaded):
    """The mean over sentences, in batches of either; and label smoothing mixes in the uniform distribution, by hand."""
    task, total, weight = loaded.task, 0.0, 0.0
    loss = jax.jit(lambda batch, key, hypers: task.loss(loaded.params, {}, batch, key, hypers)[:3])
    for batch in task.batches("validation", seed=None, batch_tokens=100):
        sums = loss(batch, None, {})
        total, weight = total + sums[0], weight + sums[1]
    numbers, answers = task.evaluate(loaded.params, {}, "validation", loaded.place)
    assert weight == len(answers)
    assert numbers["loss"] == pytest.approx(float(total / weight), rel=1e-5)
    logits = np.asarray(jax.jit(task.model.apply)({"params": loaded.params}, batch["source"]), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -(0.9 * log_p[np.arange(len(log_p)), batch["target"][:, 0] - 1] + 0.1 * log_p.mean(1)) * (batch["target"][:, 0] != PAD)
    hypers = {"dropout": jnp.float32(0), "attention_dropout": jnp.float32(0), "label_smoothing": jnp.float32(0.1)}
    found = loss(batch, jax.random.key(0), hypers)
    assert float(found[0]) == pytest.approx(wanted.sum(), rel=1e-5)
    right = (log_p.argmax(1) + 1 == batch["target"][:, 0]).sum()
    assert found[2]["accuracy"] == (right, (batch["target"] != PAD).sum())


def test_labels_that_a_run_was_not_trained_with_are_refused(trained, table):
    """Fewer of them, whose numbers would be others', and more; before anything is counted."""
    for labels in ("ac", "abcd"):
        other = table.with_name(f"{labels}.tsv")
        other.write_text("text\tlabel\n" + "".join(f"ape {n}\t{labels[n % len(labels)]}\n" for n in range(40)))
        with pytest.raises(InputError, match=f"the labels of the data are {', '.join(labels)}; expected those .* with, a, b, c"):
            runs.Loaded(trained[0], print, [f"data.train={other}"]).evaluate("test")


def test_training_batches_in_order_are_those_of_the_runs_own_split(new):
    task = new(**{"run.seed": 2})
    found = np.sort(np.concatenate([batch["source"][:, 0] for batch in task.batches("train", seed=None)]))
    wanted = np.sort([row[0] for row in task._of([i for i in task._split(2).train if i not in LONG]).source])
    np.testing.assert_array_equal(found[found != PAD], wanted)


def test_predictions_are_those_of_each_line_alone_with_remarks(loaded):
    lines = [*(f"{word} ape" for word in WORDS), "bee " * 14, "yak", "yak zho"]
    answers, remarks = loaded.task.predict(loaded.params, {}, lines, loaded.place)
    assert [loaded.task.predict(loaded.params, {}, [line], loaded.place)[0][0] for line in lines] == answers
    assert len(set(answers)) > 1
    assert remarks == [
        "1 of 10 lines are longer than the 13 tokens of training (first: line 8)",
        "2 of 10 lines are of nothing but words that are not in the vocabulary (first: line 9)",
    ]


def test_a_workdir_is_all_that_answers_need(trained, loaded, monkeypatch):
    def gone(config):
        raise InputError("no such file")

    monkeypatch.setattr(tsv_file, "labelled", gone)
    again = runs.Loaded(trained[0], print)
    assert again.predict(["cat ape", "dog"]) == loaded.predict(["cat ape", "dog"])


def test_lanes_are_folds_of_one_program(config_of, trained, tmp_path):
    """Two seeds train on two splits; and what each finds is what the run alone found."""
    workdirs = [tmp_path / "3", tmp_path / "4"]
    found = [result.results for result in loop.train_together([config_of(**{"run.seed": s}) for s in (3, 4)], workdirs, quiet=True)]
    rows = [[json.loads(line)["source"] for line in (w / runs.ANSWERS).read_text().splitlines()] for w in (*workdirs, trained[0])]
    assert rows[0] == rows[2]
    assert set(rows[0]).isdisjoint(rows[1])
    assert found[0]["test"] == pytest.approx(trained[1]["test"], rel=1e-3)
    assert found[0]["tokens"] == trained[1]["tokens"]


def test_seeds_share_shapes_and_train_on_their_own_sentences(new):
    """As many of them in every fold, in one shape."""
    task = new()
    plans = [task.batches("train", seed=0, multiple=8).seeded(seed) for seed in range(11)]
    assert len({(tuple(plan.shapes), plan.per_epoch) for plan in plans}) == 1
    for seed, plan in enumerate(plans):
        own, seen = task.seeded(seed), []
        split = own._split(seed)
        for batch in plan:
            real = batch["target"][:, 0] != PAD
            seen += [tuple(row[row != PAD]) for row in batch["source"][real]]
        assert sorted(seen) == sorted(tuple(row) for row in own._of(split.train).source)


def test_long_sentences_are_counted_and_judged_but_not_trained_on(new):
    task = new()
    assert "103 sentences" not in task.describe()
    assert re.search(
        r"sentences of 3 classes: 81 for training, \d+ for validation, 1\d for test; 2 not trained on", task.describe()
    )
    assert not set(LONG) & set(task._split(0).train)
    assert set(LONG) <= {*task._split(0).validation, *task._split(0).test}


def test_a_trained_fold_is_the_fold_for_good(trained):
    with pytest.raises(InputError, match=r"--change=run\.seed=4, which the run was trained with as 3"):
        runs.Loaded(trained[0], print, ["run.seed=4"])


def test_the_vocabulary_is_of_what_may_be_trained_on(new, table):
    """Of all sentences in a set of folds, of the training split where it is given; without rare words, if so asked for."""

    def words(**changes):
        vocabulary = new(**changes).vocabulary
        return {vocabulary.pieces([token])[0] for token in range(4, len(vocabulary))}

    own = {f"n{n}" for n in range(N)}
    assert words() == own | set(WORDS)
    assert words(**{"task.least": 2}) == set(WORDS)
    other = table.with_name("other.tsv")
    other.write_text("text\tlabel\nyak\ta\nzho\tb\n")
    assert words(**{"data.validation": str(other)}) == own | set(WORDS)


def test_embeddings_of_known_words_begin_at_their_vectors(new, config_of, table, tmp_path):
    """In their rows and no others; a task that was saved begins the same."""
    path = table.with_name("vectors.txt")
    path.write_text(
        "".join(f"{word} {' '.join(str(i * 16 + d) for d in range(16))}\n" for i, word in enumerate(("cat", "yak", "ape")))
    )
    task = new(**{"task.vectors": str(path)})
    assert f"2 of them with vectors from {path}" in task.describe()
    task.save(tmp_path)
    saved = Task.saved(settings_lib.parse(config_of(**{"task.vectors": "gone"})), tmp_path)
    tables = [task.init(jax.random.key(0))[0]["embedding"]["embedding"] for task in (task, new(), saved)]
    moved = np.flatnonzero((tables[0] != tables[1]).any(1))
    assert sorted(task.vocabulary.pieces([token])[0] for token in moved) == ["ape", "cat"]
    np.testing.assert_array_equal(tables[2], tables[0])


def test_figures_are_of_a_sentence_and_of_all_answers(new, loaded, monkeypatch, tmp_path):
    """Confusion first, then a heatmap for each layer, whose axes are the tokens, [CLS] among them where there is one."""
    drawn = []
    monkeypatch.setattr(confusion, "draw", lambda path, count_CC, classes: drawn.append(count_CC))
    paths = loaded.task.figures(loaded.params, {}, loaded.place, tmp_path)
    assert [path.name for path in paths] == ["confusion.png", "encoder_0_self_attention.png"]
    _, answers = loaded.task.evaluate(loaded.params, {}, "validation", loaded.place)
    said, labels = [row["answer"] for row in answers], [row["reference"] for row in answers]
    np.testing.assert_array_equal(drawn[0], metrics.confusion_matrix(labels, said, labels=["a", "b", "c"]))
    for pooling in ("mean", "cls"):
        task = new(**{"model.pooling": pooling})
        ((trace, queries, keys),) = task.traces(task.init(jax.random.key(0))[0], {}, loaded.place).values()
        weights_HQS = np.asarray(trace_weights(trace))[0]
        assert weights_HQS.shape == (2, len(queries), len(keys))
        np.testing.assert_allclose(weights_HQS.sum(-1), 1, rtol=1e-5)
        assert queries == keys
        assert (queries[0] == "[CLS]") == (pooling == "cls")
        assert queries[-1] == "</s>"


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Config, {"batch_tokens": 0}, "task.batch_tokens is 0"),
        (Config, {"least": 0}, "task.least is 0"),
        (Config, {"subwords": -1}, "task.subwords is -1"),
        (Config, {"max_length": 0}, "task.max_length is 0"),
        (Config, {"max_padding": 0.0}, "task.max_padding is 0"),
        (Config, {"vectors": "v", "tokens": "subwords"}, "task.vectors are of words, and task.tokens is 'subwords'"),
        (Hypers, {"dropout": 1.0}, "hypers.dropout is 1"),
        (Hypers, {"label_smoothing": -0.1}, "hypers.label_smoothing is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(cls, values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        cls(**values)


@pytest.mark.parametrize("route", ["linear", "fused"])
def test_a_route_that_the_variant_cannot_take_is_refused_at_once(new, route):
    with pytest.raises(InputError, match=f"route='{route}' cannot take this"):
        new(**{"model.route": route, "hypers.attention_dropout": 0.1})
