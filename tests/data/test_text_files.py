"""Text files are read whole, plain or gzip, and what is wrong with one is told with its name and line."""

import gzip

import pytest

from attention_variants.data import parallel_text, text_files
from attention_variants.errors import InputError


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"one\ntwo\n", b"one\ntwo", b"one\r\ntwo\r\n", "één\nzwö\n".encode()])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_come_without_their_ends_from_plain_and_gzip(tmp_path, content, pack):
    wanted = content.decode().replace("\r", "").removesuffix("\n").split("\n")
    assert text_files.read_lines(written(tmp_path / "text", pack(content))) == wanted


def test_only_a_line_feed_ends_a_line(tmp_path):
    """Line n stays line n: form feeds and Unicode's line separators are characters."""
    assert text_files.read_lines(written(tmp_path / "text", "a\u2028b\x0cc\x85d\re\n".encode())) == ["a\u2028b\x0cc\x85d\re"]


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "text", b"here\n")
    assert text_files.read_lines("~/text") == ["here"]


LARGE = gzip.compress(b"".join(b"%d some words\n" % (n * n) for n in range(2000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file: .*text"),
        (b"", r"text is empty; expected lines"),
        (b"\n \n", r"text is empty"),
        (gzip.compress(b""), r"text is empty"),
        (b"one\ntwo\nthr\xe9e\nfour\n", r"text, line 3, is not UTF-8 \(byte 4\)"),
        (gzip.compress(b"\xff\n"), r"text, line 1, is not UTF-8 \(byte 1\)"),
        (LARGE[: len(LARGE) // 2], r"cannot read .*text"),
        (LARGE[:10] + b"\x07" + LARGE[11:], r"cannot read .*text"),
        (LARGE[:-8] + bytes(8), r"cannot read .*text"),
    ],
    ids=["missing", "empty", "blank", "empty gzip", "latin-1", "latin-1 gzip", "cut gzip", "damaged gzip", "wrong checksum gzip"],
)
def test_what_is_refused(tmp_path, content, message):
    if content is not None:
        written(tmp_path / "text", content)
    with pytest.raises(InputError, match=message):
        text_files.read_lines(tmp_path / "text")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        text_files.read_lines(tmp_path)


def test_two_files_of_different_length_are_refused_with_both_counts(tmp_path):
    ours, theirs = written(tmp_path / "a", b"1\n2\n3\n"), written(tmp_path / "b", b"1\n2\n3\n4\n5\n")
    with pytest.raises(InputError, match=r"/a has 3 lines and .*/b has 5"):
        text_files.read_pairs(ours, theirs)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [(b"1\n\n3\n", b"1\n2\n3\n", "/a, line 2, is empty"), (b"1\n2\n3\n", b"1\n2\n \t\r\n", "/b, line 3, is empty")],
)
def test_an_empty_line_is_refused_with_its_number(tmp_path, source, target, message):
    with pytest.raises(InputError, match=message):
        text_files.read_pairs(written(tmp_path / "a", source), written(tmp_path / "b", target))


def test_pairs_are_line_by_line(tmp_path):
    pairs = text_files.read_pairs(written(tmp_path / "a", b"1\n2\n"), written(tmp_path / "b", gzip.compress(b"one\ntwo\n")))
    assert (pairs.source, pairs.target) == (["1", "2"], ["one", "two"])


def test_parallel_text_names_the_setting_that_is_missing():
    with pytest.raises(
        InputError, match=r"data\.validation_target is not set; give a file with --config\.data\.validation_target=PATH"
    ):
        parallel_text.read(parallel_text.Config(validation_source=__file__), "validation")


def test_parallel_text_has_a_test_split_when_a_file_is_given():
    assert parallel_text.splits(parallel_text.Config()) == ("train", "validation")
    assert parallel_text.splits(parallel_text.Config(test_target="x")) == ("train", "validation", "test")
