"""Laws of tokens for pre-trained models: their ids, their strings, the words that they are of; and what is wrong with a folder."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from attention_variants.data import pretrained_text
from attention_variants.errors import InputError
from tests.cases.pretrained import with_sentencepiece

BERT = pathlib.Path(__file__).parents[1] / "golden" / "bert_random"
LINES = ["the cat isn't here", "two young men are outside near many bushes", "a girl goes to the old school"] * 5


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    return with_sentencepiece(tmp_path_factory.mktemp("marian"), LINES)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A folder with a byte-level tokenizer that truncates and pads."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    options = dict(special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=271, **options))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=31)
    folder = tmp_path_factory.mktemp("roberta")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("folder", ["marian", "roberta"])
def test_an_id_that_nobody_knows_still_has_a_name(folder, request):
    assert pretrained_text.load(request.getfixturevalue(folder)).pieces([0, 9999])[1] == "<9999>"


def test_wordpiece_has_words_of_several_tokens():
    """A token that goes on a word, "##", has the word of the one before; [CLS] and [SEP] have none; "[MASK]" is one token."""
    line = "Two [MASK], unbelievable  bushes"
    found = pretrained_text.load(BERT).line(line)
    assert (found.pieces[0], found.pieces[-1]) == ("[CLS]", "[SEP]")
    assert (found.word_S[0], found.word_S[-1]) == (-1, -1)
    assert found.words == ["Two", "[MASK]", ",", "unbelievable", "bushes"]
    goes_on = [piece.startswith("##") for piece in found.pieces[1:-1]]
    assert sum(goes_on) > 2
    np.testing.assert_array_equal(found.word_S[1:-1], np.cumsum(~np.array(goes_on)) - 1)
    vocabulary = json.loads((BERT / "tokenizer.json").read_text())["model"]["vocab"]
    assert found.ids.tolist() == [vocabulary[piece] for piece in found.pieces]


def test_byte_level_tokens_are_of_words_and_nothing_is_cut_or_filled_up(roberta):
    line = "the cat isn't at café"
    found = pretrained_text.load(roberta).line(line)
    assert found.words == ["the", "cat", "isn", "'t", "at", "café"]
    assert (found.pieces[0], found.pieces[-1], found.word_S[0], found.word_S[-1]) == ("<s>", "</s>", -1, -1)
    for word, text in enumerate(found.words):
        joined = "".join(piece for piece, of in zip(found.pieces, found.word_S, strict=True) if of == word)
        assert joined.replace("Ġ", "").replace("Ã©", "é") == text
    assert pretrained_text.load(roberta).pieces(found.ids) == found.pieces


def test_sentencepiece_has_the_ids_of_the_vocabulary(marian):
    line = "the girl isn't here"
    found = pretrained_text.load(marian).line(line)
    ids = json.loads((marian / "vocab.json").read_text())
    assert found.pieces[0] == "▁the"
    assert found.ids.tolist() == [ids["<unk>"], *(ids[piece] for piece in found.pieces[1:])]
    assert (found.pieces[-1], found.word_S[-1], found.words) == ("</s>", -1, line.split())
    np.testing.assert_array_equal(found.word_S[:-1], np.cumsum([piece[0] == "▁" for piece in found.pieces[:-1]]) - 1)
    assert len(found.ids) > len(found.words) + 1


def test_a_target_language_is_one_token_and_a_word(marian):
    tokenizer = pretrained_text.load(marian)
    plain, found = tokenizer.line("old men"), tokenizer.line(">>fra<< old men")
    assert (found.pieces, found.words) == ([">>fra<<", *plain.pieces], [">>fra<<", *plain.words])
    assert found.word_S.tolist() == [0, *(plain.word_S[:-1] + 1), -1]
    assert tokenizer.line("old >>fra<< men").pieces.count(">>fra<<") == 0


def test_each_side_has_its_own_and_ids_become_pieces_again(marian):
    line = "loohcs dlo"
    target = pretrained_text.load(marian, "target")
    found = target.line(line)
    assert len(found.ids) < len(pretrained_text.load(marian).line(line).ids)
    assert target.pieces(found.ids) == found.pieces
    assert "".join(found.pieces[:-1]).replace("▁", " ").strip() == line


def test_an_empty_line_has_no_words(marian, roberta):
    for folder, ends in ((marian, 1), (roberta, 2), (BERT, 2)):
        found = pretrained_text.load(folder).line("")
        assert (found.word_S.tolist(), found.words) == ([-1] * ends, [])


def test_rows_are_filled_up():
    tokenizer = pretrained_text.load(BERT)
    rows = pretrained_text.encode(tokenizer, LINES[:2], 40)
    found_BS = pretrained_text.batch([row.ids for row in rows], 599)
    assert (found_BS.dtype, found_BS.shape) == (np.int32, (2, max(len(row.ids) for row in rows)))
    for found_S, row in zip(found_BS, rows, strict=True):
        assert found_S.tolist() == row.ids.tolist() + [599] * (len(found_S) - len(row.ids))
    assert pretrained_text.batch([[1, 2], [3]], 9, 3).tolist() == [[1, 2, 9], [3, 9, 9]]


def test_a_line_that_is_too_long_is_named():
    tokenizer = pretrained_text.load(BERT)
    rows = pretrained_text.encode(tokenizer, LINES[:3], 40)
    most = max(len(row.ids) for row in rows)
    assert len(rows[1].ids) == most > len(rows[2].ids)
    pretrained_text.encode(tokenizer, LINES[:3], most)
    with pytest.raises(InputError) as error:
        pretrained_text.encode(tokenizer, LINES[:3], most - 1, "news.txt")
    expected = f"news.txt, line 2, has {most} tokens; expected at most {most - 1}, the positions of the model"
    assert str(error.value) == expected


def break_(path: pathlib.Path, content: str | None):
    path.unlink()
    if content is not None:
        path.write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, r"no tokenizer in .*; expected tokenizer.json, or source.spm, target.spm and vocab.json$"),
        ("tokenizer.json", "{}", r"cannot read the tokenizer .*tokenizer.json: "),
        ("source.spm", "?", r"cannot read the tokenizer .*source.spm: "),
        ("vocab.json", None, r"cannot read the vocabulary .*vocab.json: "),
        ("vocab.json", "{", r"cannot read the vocabulary .*vocab.json: "),
        ("vocab.json", '{"<unk>": 1}', r"the vocabulary .*vocab.json has no '</s>'; expected an id for every piece"),
        ("vocab.json", "[]", r"the vocabulary .*vocab.json has no '</s>'; expected an id for every piece"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path, marian, roberta, name, content, message):
    folder = shutil.copytree(roberta if name == "tokenizer.json" else marian, tmp_path / "model")
    break_(folder / name, content)
    with pytest.raises(InputError, match=message):
        pretrained_text.load(folder)


def test_a_folder_with_an_old_tokenizer_is_told_how_to_make_the_new_one(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(InputError, match=r'; python -c "from transformers import AutoTokenizer; .*save_pretrained\(.*" makes it'):
        pretrained_text.load(tmp_path)
