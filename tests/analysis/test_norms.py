"""What is said of weights and norms: of every task, of pre-trained models, and what is known beforehand."""

import json
import pathlib
from collections import Counter

import numpy as np
import pytest

from attention_variants.analysis import blocks, heads, norms, pretrained
from attention_variants.data.tokens import PAD
from attention_variants.errors import InputError
from attention_variants.models import layers
from attention_variants.train import loop, runs
from configs import classification, regression

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def check(paths, capsys):
    assert all(path.stat().st_size > 0 for path in paths)
    found = json.loads(paths[-1].read_text())["layers"]
    assert json.loads(capsys.readouterr().out.splitlines()[0]).keys() == found.keys()
    return found


def test_a_run_of_translation(trained, capsys):
    paths = norms.draw(trained[0])
    found = check(paths, capsys)
    assert set(found) == {"encoder_0_self_attention", "decoder_0_self_attention", "decoder_0_cross_attention"}
    ranked = json.loads(pathlib.Path(paths[-1]).read_text())["rank correlation with frequency rank"]
    assert set(ranked) == {"encoder self attention", "decoder self attention", "decoder cross attention"}
    assert ranked["decoder cross attention"].keys() == {"weight", "norm"}
    for name, numbers in found.items():
        assert set(numbers["mixing"]["all"]) == set(blocks.MIXING) - (
            set() if "self" in name else {"Attn-W", "Attn-N", "AttnRes-W"}
        )
        total = sum(of["weight"] for of in numbers["received"].values())
        assert total == pytest.approx(1.0, abs=1e-4), "every query gives all of its weight to some kind of key"


@pytest.mark.parametrize("make", [lambda: classification.get_config("tiny"), lambda: regression.get_config("variant=rbf,tiny")])
def test_every_task_has_norms(make, tmp_path, capsys):
    """Of rows of a table, of which pictures name a few, all that are read count."""
    config = make()
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    for numbers in check(norms.draw(tmp_path / "run"), capsys).values():
        assert sum(of["weight"] for of in numbers["received"].values()) == pytest.approx(1.0, abs=1e-4)


def test_what_is_followed_through_feed_forward_nets_is_what_the_layer_has_made(trained, tmp_path):
    """And a net that ends in another ReLU, which `through` knows nothing of, is left out."""
    loaded = runs.Loaded(trained[0], print)
    found = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    for layer in norms.read(loaded.params, found, loaded.task.model.config):
        assert len(layer.through) == (0 if layer.name == "decoder_0_self_attention" else norms.THROUGH)
        for of, layer_QD, real_Q in zip(layer.through, found[layer.name][0]["layer_BQD"], layer.real_BQ, strict=False):
            np.testing.assert_allclose(of.total_QD[real_Q], layer_QD[real_Q], rtol=1e-4, atol=1e-4)
        if layer.through:
            kept = norms.numbers(layer)["rank correlation through the feed-forward net"]
            assert list(kept) == ["after the net", "with its residual", "after its layer normalisation"]
            assert all(-1 <= rho <= 1 for rho in kept.values())
    config = regression.get_config("variant=rbf,model=row_transformer_authors,tiny")
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    loaded = runs.Loaded(tmp_path / "run", print)
    found = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    assert [layer.through for layer in norms.read(loaded.params, found, loaded.task.model.config)] == [[]]


def test_tokens_are_counted_where_training_has_them(trained):
    loaded = runs.Loaded(trained[0], print)
    pairs, pieces = loaded.task.source.read(loaded.task.data, "train"), loaded.task.vocabulary.pieces
    for side, texts in zip(("encoder", "decoder"), pairs[:2], strict=True):
        expected = Counter(piece for row in loaded.task.vocabulary.encode(texts) for piece in pieces(row))
        found = norms.counts(loaded.task)[side]
        assert {token: n for token, n in found.items() if token != pieces([PAD])[0]} == expected


def test_a_smoother_carries_its_targets_alone(tmp_path):
    loop.train(regression.get_config("tiny"), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="smoother has no residual connection around it; expected a Transformer's attention"):
        norms.draw(tmp_path / "run")


def test_a_pre_trained_model(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a man is here .\nthe dog runs\n")
    found = check(norms.draw_pretrained(str(GOLDEN / "bert_random"), str(text), str(tmp_path / "out")), capsys)
    assert len(found) == 3
    traced = pretrained.trace(GOLDEN / "bert_random", text)
    trace, real, keys = traced.layers["encoder_0_self_attention"]
    assert keys[0][0] == "[CLS]"
    assert real.sum(1).tolist() == [len(row) for row in keys]
    assert trace["v_BSHV"].shape[:2] == real.shape


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None, None, None), "found neither of --workdir and --model; expected --workdir=RUN, or --model=FOLDER"),
        (("a", "b", None, None, None), "found both of --workdir and --model"),
        ((None, "b", None, "d", None), "--model is given without --text; expected --model=FOLDER --text=FILE --output=DIR"),
        ((None, "b", "c", None, None), "--model is given without --output"),
        (("a", None, "c", None, None), "--text, --output and --target belong to --model; expected --workdir alone"),
    ],
)
def test_flags_that_do_not_go_together(given, message):
    with pytest.raises(InputError, match=message):
        norms.main(*given)


def test_the_output_is_a_folder(tmp_path):
    (tmp_path / "text.txt").write_text("a man\n")
    with pytest.raises(InputError, match=r"--output is .*text\.txt, a file; expected a folder"):
        norms.draw_pretrained(str(GOLDEN / "bert_random"), str(tmp_path / "text.txt"), str(tmp_path / "text.txt"))


def test_bert_translates_nothing(tmp_path):
    (tmp_path / "text.txt").write_text("a man\n")
    with pytest.raises(InputError, match="holds a bert, which translates nothing; expected --text alone"):
        pretrained.trace(GOLDEN / "bert_random", tmp_path / "text.txt", tmp_path / "text.txt")


def test_a_tokenizer_of_another_model(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("a man\n")
    load = pretrained.pretrained.load
    small = lambda folder: (of := load(folder))._replace(model=of.model.clone(vocabulary=3))
    monkeypatch.setattr(pretrained.pretrained, "load", small)
    with pytest.raises(InputError, match=r"line 1, has .*, of which the tokenizer says \d+, and the model has 3 tokens"):
        pretrained.trace(GOLDEN / "bert_random", tmp_path / "text.txt")


def test_layers_are_in_the_order_of_the_model():
    kinds = ("decoder_{}_cross", "decoder_{}_self", "encoder_{}_self")
    names = [f"{kind.format(n)}_attention" for kind in kinds for n in (10, 2)]
    assert layers.in_order(names) == [
        "encoder_2_self_attention",
        "encoder_10_self_attention",
        "decoder_2_self_attention",
        "decoder_2_cross_attention",
        "decoder_10_self_attention",
        "decoder_10_cross_attention",
    ]
