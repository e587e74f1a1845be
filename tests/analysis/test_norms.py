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


def read(workdir):
    """(parameters, layers, config) of a run."""
    loaded = runs.Loaded(workdir, print)
    found = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    return loaded.params, norms.read(loaded.params, found, loaded.task.model.config), loaded.task.model.config


def test_examples_are_followed_through_feed_forward_nets(trained):
    """As `blocks.through` has them, without what fills rows up; of what stands in front it is the layer's own maps."""
    params, layers, config = read(trained[0])
    followed = norms.follow(params, layers, config)
    assert set(followed) == {"encoder_0_self_attention", "decoder_0_cross_attention"}
    for layer in layers:
        for example, maps in enumerate(followed.get(layer.name, ())):
            queries, keys = layer.real_BQ[example].sum(), (layer.kind_BS[example] != "").sum()
            assert list(maps) == ["after attention block", "after the net", "with its residual", "after its layer normalisation"]
            first = maps["after attention block"]
            assert all(map_QS.shape == first.shape == (queries, keys + ("cross" in layer.name)) for map_QS in maps.values())
            expected = layer.norms.normalised_BQS[example][:queries, :keys]
            np.testing.assert_allclose(first[:, :keys], expected, rtol=1e-4, atol=1e-5)
            if "cross" in layer.name:
                np.testing.assert_allclose(first[:, -1], layer.norms.normalised_own_BQ[example][:queries], rtol=1e-4, atol=1e-5)
    same = [dict.fromkeys(("a", "b"), maps["after attention block"]) for maps in followed["encoder_0_self_attention"]]
    assert norms.kept(same) == {"b": pytest.approx(1.0)}


def test_rows_that_fill_up_are_not_followed_and_unseen_keys_are_kept(trained):
    params, layers, config = read(trained[0])
    (layer,) = (layer for layer in layers if "cross" in layer.name)
    kind_BS, real_BQ = layer.kind_BS.copy(), layer.real_BQ.copy()
    kind_BS[0, 1] = kind_BS[0, len(layer.keys[0]) - 1] = ""  # as if nobody took anything of these
    real_BQ[1] = False
    found = norms.follow(params, [layer._replace(kind_BS=kind_BS, real_BQ=real_BQ)], config)[layer.name]
    expected = norms.follow(params, [layer], config)[layer.name]
    for n, m in ((0, 0), (1, 2)):
        for name, map_QS in expected[m].items():
            np.testing.assert_array_equal(found[n][name], map_QS)


def test_a_net_with_another_relu_is_not_followed(tmp_path):
    config = regression.get_config("variant=rbf,model=row_transformer_authors,tiny")
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    assert norms.follow(*read(tmp_path / "run")) == {}


def test_frequencies_are_means_over_layers(trained):
    _, layers, _ = read(trained[0])
    (layer,) = (layer for layer in layers if layer.name.startswith("encoder"))
    other = layer._replace(norms=layer.norms._replace(lengths_BHS=3 * layer.norms.lengths_BHS))
    found = norms.frequencies([layer, other], {"encoder": {"1": 5}})
    assert found.keys() == {"encoder self attention"}
    np.testing.assert_allclose(
        found["encoder self attention"][1]["norm"], 2 * np.asarray(layer.norms.lengths_BHS).mean(1), rtol=1e-6
    )


def test_tokens_are_counted_where_training_has_them(trained):
    loaded = runs.Loaded(trained[0], print)
    pairs, pieces = loaded.task.source.read(loaded.task.data, "train"), loaded.task.vocabulary.pieces
    for side, texts in zip(("encoder", "decoder"), pairs[:2], strict=True):
        expected = Counter(piece for row in loaded.task.vocabulary.encode(texts) for piece in pieces(row))
        found = norms.counts(loaded.task, {"encoder", "decoder"}, print)[side]
        assert {token: n for token, n in found.items() if token != pieces([PAD])[0]} == expected


def test_data_that_are_gone_are_no_reason_to_say_nothing(trained, monkeypatch):
    def gone(*args, **kwargs):
        raise InputError("no such file")

    loaded, told = runs.Loaded(trained[0], print), []
    monkeypatch.setattr(loaded.task, "batches", gone)
    assert norms.counts(loaded.task, {"encoder"}, told.append) == {}
    assert told == ["no such file; going on without frequencies"]


def test_a_smoother_carries_its_targets_alone(tmp_path):
    loop.train(regression.get_config("tiny"), tmp_path / "run", quiet=True)
    with pytest.raises(
        InputError,
        match="the attention layer 'smoother' has no residual connection around it; expected a model that is a Transformer",
    ):
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
    text = str(tmp_path / "text.txt")
    for output in (text, f"{text}/out"):
        with pytest.raises(InputError, match=r"--output is .*text\.txt.*, and .*text\.txt is no folder that can be written to"):
            norms.main(None, str(GOLDEN / "bert_random"), text, output, None)
    with pytest.raises(InputError, match="no such folder"):
        norms.main(None, str(tmp_path / "model"), text, str(tmp_path / "out"), None)
    assert not (tmp_path / "out").exists()


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
