"""Tables are read as they are written, split by seed, and refused in a sentence that says where."""

import numpy as np
import pytest

from attention_variants.data import downloads, tables, text_files, textbook, uci
from attention_variants.data.tables import Table, Whole, read_csv
from attention_variants.errors import InputError

TEXT = "a,b,kind\n1,2.5,x\n-3,4e1,y\n5,6,x\n"


def test_a_file_is_its_columns():
    table = read_csv(TEXT.replace("kind", "c").replace("x", "7").replace("y", "8"), "f", target="b")
    assert table.features == ("a", "c")
    np.testing.assert_array_equal(table.x_NF, [[1, 7], [-3, 8], [5, 7]])
    np.testing.assert_array_equal(table.y_N, [2.5, 40, 6])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_chosen_features(separator):
    text = 'a,"b c",t\n"1",2,3\n4,5,6\n'.replace(",", separator)
    table = read_csv(text, "f", target="t", features=("b c",))
    assert table.features == ("b c",)
    assert table.x_NF.tolist() == [[2], [5]]


def test_classes_are_words():
    table = read_csv(TEXT, "f", target="kind", classes=True)
    assert table.classes == ("x", "y")
    assert table.y_N.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "given", "sentence"),
    [
        (TEXT, {"target": "kinds"}, "unknown column in f: 'kinds'; did you mean 'kind'"),
        (TEXT, {"target": "a", "features": ("bb",)}, "unknown column in f: 'bb'"),
        (TEXT, {"target": "a"}, "f, line 2, column 'kind', is 'x'; expected a number"),
        (TEXT.replace("4e1", "nan"), {"target": "a", "features": ("b",)}, "f, line 3, column 'b', is 'nan'; expected a number"),
        ("a,b\n1,2\n1\n", {"target": "a"}, "f, line 3, has 1 cells; expected 2"),
        ("a,b\n1,2\n1,3\n", {"target": "a"}, "the target 'a' of f is the same in all 2 rows"),
        ("a\n1\n2\n", {"target": "a"}, "no column for features"),
        ("a,b\n1,2\n", {"target": "a"}, "f has 1 rows; expected at least 2"),
        ("a,a,b\n1,2,3\n4,5,6\n", {"target": "b"}, "f has two columns 'a'; expected a name of its own for each"),
        (TEXT, {"target": "a", "features": ("a", "b")}, "'a' of f is the target and among the features"),
        ('a,b\n1,"2\n' + "3,4\n" * 40_000, {"target": "a"}, "f cannot be read as separated values: field larger"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, given, sentence):
    with pytest.raises(InputError) as caught:
        read_csv(text, "f", **given)
    assert sentence in str(caught.value)


def test_lines_that_are_asked_for_are_numbers_in_the_order_of_the_features():
    assert tables.numbers(["1, 2.5", "-3,4e1"], ("a", "b")).tolist() == [[1, 2.5], [-3, 40]]
    for lines, sentence in ((["a,b", "1,2"], "line 1 names the columns"), (["1,x"], "line 1, column 'b', is 'x'")):
        with pytest.raises(InputError, match=sentence):
            tables.numbers(lines, ("a", "b"))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_split_is_every_row_once(seed):
    table = textbook.table(textbook.Config(rows=101))
    split = tables.split(table, seed, 0.1, 0.2)
    assert sorted(np.concatenate(split)) == list(range(101))
    assert [len(part) for part in split] == [73, 8, 20]
    again, other = tables.split(table, seed, 0.1, 0.2), tables.split(table, seed + 1, 0.1, 0.2)
    assert all(np.array_equal(a, b) for a, b in zip(split, again, strict=True))
    assert not np.array_equal(split.test, other.test)


def test_standard_splits_are_chosen_by_the_seed():
    tests = (np.array([1, 5]), np.array([2, 9]))
    table = Table(np.zeros((13, 1)), np.arange(13.0), ("a",), "b", tests=tests)
    for seed in (0, 1, 2):
        split = tables.split(table, seed, 0.2, 0.5)
        assert split.test.tolist() == tests[seed % 2].tolist()
        assert sorted(np.concatenate(split)) == list(range(13))


def test_too_few_rows_are_refused():
    table = Table(np.zeros((4, 1)), np.arange(4.0), ("a",), "b")
    with pytest.raises(InputError, match="4 rows leave 0 for validation"):
        tables.split(table, 0, 0.1, 0.1)


def test_scales_are_of_the_training_rows_alone():
    x = np.array([[1.0, 5], [3, 5], [100, 5]])
    table, split = Table(x, x[:, 0], ("a", "b"), "c"), tables.Split(np.array([0, 1]), np.array([2]), np.array([2]))
    scaled = tables.scaled(table, split)
    assert scaled.x.tolist() == [[-1, 0], [1, 0], [98, 0]]
    assert scaled.y[:, 0].tolist() == [-1, 1, 98]
    np.testing.assert_allclose(tables.scaled(table, split, to_range=True).x[:, 0], [-1, 2 * 2 / 99 - 1, 1])
    assert not tables.scaled(table, split, to_range=True).x[:, 1].any()
    assert scaled.target(scaled.y).tolist() == x[:, 0].tolist()


def test_a_batch_is_the_whole_or_rows_of_the_epoch():
    arrays = lambda seed: {"x": np.arange(7.0)[:, None] + seed}
    whole = Whole(arrays, seed=3)
    assert whole[0]["x"].shape == (1, 7, 1)
    assert whole.seeded(5)[0]["x"][0, 0, 0] == 5
    some = Whole(arrays, rows=3, seed=3).until(9)
    rows = [tuple(some[k]["x"][0, :, 0]) for k in range(9)]
    assert len(set(rows)) > 3
    assert rows == [tuple(some[k]["x"][0, :, 0]) for k in range(9)]
    assert all(len(set(r)) == 3 for r in rows)


@pytest.mark.parametrize("name", ["concrete", "kin8nm", "power-plant", "wine-quality-red"])
def test_the_standard_splits_are_those_of_the_field(name):
    file = downloads.folder() / "uci_regression" / name / "splits.npz"
    if not file.exists():
        pytest.skip("ATTENTION_VARIANTS_DATA has no uci_regression")
    with np.load(file) as kept:
        ours = uci.splits(len(kept["train_0"]) + len(kept["test_0"]))
        assert all(np.array_equal(np.sort(rows), np.sort(kept[f"test_{i}"])) for i, rows in enumerate(ours))


def test_a_file_is_read_with_its_line_numbers(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    assert "\n".join(text_files.read_lines(tmp_path / "t.csv")) == TEXT.rstrip("\n")
