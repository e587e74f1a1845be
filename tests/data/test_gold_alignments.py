"""Links are read as they are written, and what cannot be right is refused with its file and line."""

import pytest

from attention_variants.data import downloads, gold_alignments
from attention_variants.errors import InputError

SOURCE, TARGET = "a b c\nd e\nf g h i j\n", "u v w x y\nz\nk l m\n"
TEXT = "".join(f"{s} ||| {t} \n" for s, t in zip(SOURCE.split("\n"), TARGET.split("\n"), strict=True) if s)
LINKS = "1-1 3p5 2?4\n\n5-3 4-2 4p2\n"
SURE = [{(0, 0)}, set(), {(4, 2), (3, 1)}]
POSSIBLE = [{(0, 0), (2, 4), (1, 3)}, set(), {(4, 2), (3, 1)}]


def read(folder, links=LINKS, source=TEXT, target=None, **settings):
    paths = {name: folder / name for name, text in (("links", links), ("source", source), ("target", target)) if text is not None}
    for name, text in (("links", links), ("source", source), ("target", target)):
        if text is not None:
            paths[name].write_text(text)
    return gold_alignments.read(*paths.values(), **settings)


def changed(links: str, by: int) -> str:
    """Counted from elsewhere."""
    return gold_alignments.LINK.sub(lambda match: f"{int(match[1]) + by}{match[2]}{int(match[3]) + by}", links)


def turned(links: str) -> str:
    return gold_alignments.LINK.sub(r"\3\2\1", links)


def numbered(lines: str) -> str:
    return "".join(f"{n * 7}\t{line}\n" for n, line in enumerate(lines.split("\n")[:-1]))


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("texts", [(TEXT,), (SOURCE, TARGET)], ids=["one file", "two files"])
@pytest.mark.parametrize("in_front", [str, numbered], ids=["plain", "numbered"])
def test_the_same_links_however_they_are_written(tmp_path, base, reverse, texts, in_front):
    links = changed(turned(LINKS) if reverse else LINKS, base - 1)
    gold = read(tmp_path, in_front(links), *map(in_front, texts), base=base, reverse=reverse)
    assert gold.sure == SURE
    assert gold.possible == POSSIBLE
    assert [" ".join(words) for words in gold.source] == SOURCE.split("\n")[:-1]
    assert [" ".join(words) for words in gold.target] == TARGET.split("\n")[:-1]


def test_a_number_in_front_of_some_lines_is_no_word(tmp_path):
    """Only a number and a tab: links and words that tabs separate are links and words."""
    gold = read(tmp_path, numbered(LINKS).replace(" ", "\t"), SOURCE.replace(" ", "\t"), TARGET)
    assert (gold.sure, gold.possible) == (SURE, POSSIBLE)
    assert gold.source[2] == list("fghij")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"links": "1-1\n\n5-4\n"}, "line 3, has the link 5-4, counted from 1, of sentences of 5 and 3 words; expected words"),
        ({"links": "1-1\n\n6-3\n"}, "line 3, has the link 6-3, .* 5 and 3 words; expected words from 1 up to the last"),
        ({"links": "1-1\n0-0\n5-3\n"}, "line 2, has the link 0-0, counted from 1, .* 2 and 1 words; it seems to count from 0"),
        ({"links": "1-1\n1p0\n5-9\n"}, "line 2, has the link 1p0, .* it seems to count from 0"),
        ({"base": 0}, "line 1, has the link 3p5, counted from 0, of sentences of 3 and 5 words; it seems to count from 1"),
        ({"base": 0, "links": "0-1\n\n5-2\n"}, "line 3, has the link 5-2, .* expected words from 0 up to the last"),
        ({"base": 0, "links": "1-1\n\n6-2\n"}, "line 3, has the link 6-2, .* expected words from 0 up to the last"),
        ({"links": turned(LINKS)}, "line 1, has the link 5p3, .* 3 and 5 words; it seems to be the other way round"),
        ({"reverse": True}, "line 1, has the link 3p5, .* 5 and 3 words; it seems to be the other way round"),
        ({"links": LINKS + "1-1\n"}, "/links has 4 lines and .*/source has 3; expected as many"),
        ({"source": TEXT + "a ||| b\n"}, "/links has 3 lines and .*/source has 4; expected as many"),
        ({"source": SOURCE, "target": TARGET + "a\n"}, "/source has 3 lines and .*/target has 4; expected as many"),
        ({"links": "1-1\n1:1\n\n"}, "links, line 2, has '1:1'; expected links such as 3-4, or 3p4"),
        ({"links": "1-1\n\n1-1-1\n"}, "links, line 3, has '1-1-1'; expected"),
        ({"links": "-1-1\n\n\n"}, "links, line 1, has '-1-1'; expected"),
        ({"links": "1-²\n\n\n"}, "links, line 1, has '1-²'; expected"),
        ({"links": "1-١\n\n\n"}, "links, line 1, has '1-١'; expected"),
        ({"links": "1-12345678901234567890\n\n\n"}, "links, line 1, has '1-12345678901234567890'; expected"),
        ({"links": "x\t1-1\n\n\n"}, "links, line 1, has 'x'; expected"),
        ({"links": "\n\n\n"}, "links is empty; expected lines"),
        ({"source": TEXT.replace("e |||", "e")}, r"source, line 2, is not two sentences with \|\|\| between them"),
        ({"source": TEXT.replace("e |||", "||| e |||")}, "source, line 2, is not two sentences"),
        ({"source": TEXT.replace("d e", " ")}, "source, line 2, is not two sentences"),
        ({"source": SOURCE.replace("d e", " "), "target": TARGET}, "source, line 2, is empty"),
        ({"source": SOURCE, "target": numbered(TARGET).replace("z", " ")}, "target, line 2, is empty"),
        (
            {"links": numbered(LINKS), "source": numbered(SOURCE), "target": numbered(TARGET).replace("7\tz", "6\tz")},
            "line 2 of .*/links and of its sentences begin with 6 and 7; expected the same number",
        ),
        ({"links": numbered(LINKS).replace("14", "15"), "source": numbered(TEXT)}, "line 3 of .* begin with 14 and 15"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*nowhere"):
        gold_alignments.read(tmp_path / "nowhere", tmp_path / "source")


def test_the_english_french_set():
    """447 pairs with 4,038 sure and 13,400 other possible links (Mihalcea and Pedersen 2003)."""
    assert set(gold_alignments.ENGLISH_FRENCH) <= downloads.SOURCES.keys()
    if not all((downloads.folder() / file).exists() for file in gold_alignments.ENGLISH_FRENCH):
        pytest.skip("ATTENTION_VARIANTS_DATA has no gold_alignments")
    gold = gold_alignments.english_french()
    assert {len(column) for column in gold} == {447}
    assert (sum(map(len, gold.sure)), sum(map(len, gold.possible))) == (4038, 4038 + 13400)
    assert (sum(map(len, gold.source)), sum(map(len, gold.target))) == (7020, 7761)
    assert all(sure <= possible for sure, possible in zip(gold.sure, gold.possible, strict=True))
    assert gold.source[2] == gold.target[2] == ["oh", ",", "oh", "!"]
    assert gold.sure[2] == {(i, i) for i in range(4)}
