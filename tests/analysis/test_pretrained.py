"""Pre-trained translation models are asked as our own runs are: traces of lines, and alignments of sentence pairs."""

import json
import shutil

import pytest

from attention_variants.analysis import alignment, blocks, pretrained, translators, word_maps
from attention_variants.errors import InputError
from tests.cases.pretrained import BERT, MARIAN, with_sentencepiece
from tests.cases.word_maps import links_of

LINES = ["the cat isn't here", "two young men are outside near many bushes", "a girl goes to the old school"] * 5
SOURCE = ["the cat isn't here", "two young men near bushes", "a girl"] * 7  # more pairs than are asked for at once
TARGET = ["ereh t'nsi tac", "sehsub raen", "lrig a og"] * 7


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marian") / "model"
    shutil.copytree(MARIAN, folder)
    return with_sentencepiece(folder, LINES)


@pytest.fixture
def text(tmp_path):
    for name, lines in (("source", SOURCE), ("target", TARGET), ("both", map(" ||| ".join, zip(SOURCE, TARGET, strict=True)))):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "links").write_text("1-1 2p2\n" * len(SOURCE))
    return tmp_path


def test_marian_is_fed_with_given_translations_or_with_its_own(marian, text):
    for target in (None, text / "target"):
        traced = pretrained.trace(marian, text / "source", target)
        assert len(traced.layers) == 6
        trace, real, keys = traced.layers["decoder_1_cross_attention"]
        assert [len(row) for row in keys] == traced.layers["encoder_0_self_attention"][1].sum(1).tolist()
        before = traced.layers["decoder_0_self_attention"][2]
        assert all(row[0] == "<s>" for row in before)
        assert real.sum(1).tolist() == [len(row) for row in before]
        assert trace["q_BQHK"].shape[:2] == real.shape
        assert traced.counts["encoder"]["</s>"] == len(SOURCE)


def test_alignments_are_those_of_each_pair_alone(marian, text):
    """Pairs are asked for in another order, in batches, and filled up."""
    gold = alignment.gold_alignments.read(text / "links", text / "both")
    found = alignment.align(translators.of_marian(marian), gold)
    for n in range(3):
        for name, lines in (("one", SOURCE), ("its", TARGET)):
            (text / name).write_text(f"{lines[n]}\n")
        alone = pretrained.trace(marian, text / "one", text / "its")
        cross = {name: trace for name, (trace, *_) in alone.layers.items() if "cross" in name}
        read = blocks.blocks(alone.params, cross, alone.config).values()
        load = pretrained.pretrained_text.load
        owners = [
            of.word_S[:-1]
            for of in (
                load(marian, side).line(lines[n]) for side, lines in zip(("source", "target"), (SOURCE, TARGET), strict=True)
            )
        ]
        for kind in found.best:
            for layer, block in enumerate(read):
                for head, map_TS in enumerate(alignment.maps(block, alone.config.epsilon)[kind][0]):
                    for setting in word_maps.STEPS:
                        expected = links_of(map_TS, *owners, setting)
                        for m in (n, n + 3, n + 18):
                            assert found.links(kind, setting, layer, head)[m] == expected


def test_a_command_for_marian(marian, text, capsys):
    paths = alignment.main(None, marian, text / "links", text / "both", text / "out", base=1, reverse=False, back=None)
    assert all(path.stat().st_size > 0 for path in paths)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pairs"] == len(SOURCE)


def test_all_lines_are_counted(tmp_path):
    """And the first are traced."""
    (tmp_path / "text").write_text("the dog\n" * pretrained.MOST + "a man\n" * 3)
    traced = pretrained.trace(BERT, tmp_path / "text")
    assert len(traced.layers["encoder_0_self_attention"][1]) == pretrained.MOST
    assert (traced.counts["encoder"]["the"], traced.counts["encoder"]["man"]) == (pretrained.MOST, 3)


@pytest.mark.parametrize("output", ["both", "both/out"])
def test_the_output_is_a_folder(marian, text, output):
    with pytest.raises(InputError, match=r"--output is .*, and .*both is no folder that can be written to"):
        alignment.main(None, marian, text / "links", text / "both", text / output, base=1, reverse=False, back=None)


def test_words_are_what_white_space_separates(marian, text):
    """The tokenizer takes a space without width for one."""
    (text / "both").write_text("the\u200bcat ||| tac\n")
    (text / "links").write_text("1-1\n")
    gold = alignment.gold_alignments.read(text / "links", text / "both")
    with pytest.raises(InputError, match=r"line 1 of the source text is 1 words by its white space, and the tokenizer .* sees 2"):
        alignment.align(translators.of_marian(marian), gold)


def test_an_encoder_aligns_nothing():
    with pytest.raises(InputError, match="holds a bert, which translates nothing; expected a model of Marian"):
        translators.of_marian(BERT)
