"""What is said of weights and norms: of every task, of pre-trained models, and what is known beforehand."""

import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from attention_variants.analysis import blocks, norms, pretrained
from attention_variants.errors import InputError
from attention_variants.models import layers
from attention_variants.train import loop
from configs import classification, regression

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def measured(weights, lengths):
    nothing = dict.fromkeys(blocks.Norms._fields)
    return blocks.Norms(**nothing | {"weights_BHQS": weights, "lengths_BHS": lengths})


def draw(seed=0, shape=(2, 3, 5, 7)):
    rng = np.random.default_rng(seed)
    weights = rng.random(shape)
    return weights / weights.sum(-1, keepdims=True), rng.random((*shape[:2], shape[3]))


def test_kinds_of_tokens():
    kinds = {
        "[CLS]": ("[CLS]",),
        "</s>": ("</s>",),
        "punctuation": (".", "▁,", "##!", "Ġ..."),
        "other": ("▁the", "##ing", "3", "▁", "<unk>", "[UNK]"),
    }
    for kind, tokens in kinds.items():
        assert {norms.kind_of(token) for token in tokens} == {kind}
    seen = np.array([[True, True, False], [True, False, True]])
    assert norms.kinds([["a", ".", "b"], ["[SEP]"]], seen).tolist() == [["other", "punctuation", ""], ["[SEP]", "", "other"]]


def test_pairs_and_what_is_received_are_of_real_tokens():
    weights, lengths = draw()
    real = np.array([[True] * 5, [True, True, False, False, False]])
    kinds = np.array([["other"] * 5 + ["special", ""], ["other", "special", "", "", "", "", ""]])
    weights[0, :, :2, 3] = 0.0  # as a mask has it
    found = measured(weights, lengths)
    of = norms.pairs(found, real, kinds)
    rows = [
        (weights[b, h, q, s], lengths[b, h, s], kinds[b, s])
        for b, h, q, s in np.ndindex(weights.shape)
        if real[b, q] and kinds[b, s] and weights[b, h, q, s]
    ]
    assert sorted(zip(*map(np.ndarray.tolist, of), strict=True)) == sorted(rows)
    correlation = norms.rank_correlation(of)
    assert set(correlation) == {"other", "special"}
    for kind, rho in correlation.items():
        chosen = np.array([row[:2] for row in rows if row[2] == kind], float).T
        assert rho == pytest.approx(stats.spearmanr(*chosen)[0])
    assert len(of.few(10).weight_N) == 10
    assert of.few(10**6) is of
    given = norms.received(found, real, kinds)["special"]
    for name, carried in (("weight", np.ones_like(lengths)), ("norm", lengths)):
        each = [
            sum(weights[b, h, q, s] * carried[b, h, s] for s in range(7) if kinds[b, s] == "special")
            for b, h, q in np.ndindex(2, 3, 5)
            if real[b, q]
        ]
        assert given[name] == pytest.approx(np.mean(each))


def test_a_rank_correlation_needs_something_that_varies():
    same = norms.Pairs(np.ones(4), np.arange(4.0), np.array(["other"] * 4))
    assert norms.rank_correlation(same) == {"other": None}


def check(paths, capsys):
    assert all(path.stat().st_size > 0 for path in paths)
    found = json.loads(paths[-1].read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[0]).keys() == found.keys()
    return found


def test_a_run_of_translation(trained, capsys):
    found = check(norms.draw(trained[0]), capsys)
    assert set(found) == {"encoder_0_self_attention", "decoder_0_self_attention", "decoder_0_cross_attention"}
    for name, numbers in found.items():
        assert set(numbers["mixing"]) == set(blocks.MIXING) - (set() if "self" in name else {"Attn-W", "Attn-N", "AttnRes-W"})
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
