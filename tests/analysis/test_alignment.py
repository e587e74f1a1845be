"""Links that a map holds are those of a slow loop over its words, in both settings, and the pieces of words do not matter."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from attention_variants.analysis import alignment, blocks
from attention_variants.data import links
from attention_variants.data.links import Gold
from attention_variants.data.subwords import Subwords
from attention_variants.errors import InputError
from attention_variants.train import loop, runs
from configs import classification

SOURCE_S, TARGET_T = [0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6], [0, 0, 1, 2, 2, 2, 3]  # 7 words of 11 pieces, 4 of 7
HEADS = 3


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((HEADS, len(TARGET_T) + 1, len(SOURCE_S) + 1)) ** 3


def slow(map_TS, source_S, target_T, setting):
    """As the paper's protocol is told, a number at a time."""
    rows = list(map_TS)
    if setting == "AWO":  # the step that predicts the token: the first is fed with BEGIN, the last predicts END
        rows.pop()
    else:  # the step that is fed with the token
        rows.pop(0)
    links = set()
    for word in sorted(set(target_T)):
        own = [row for row, of in zip(rows, target_T, strict=True) if of == word]
        has = {}
        for other in [*sorted(set(source_S)), "END"]:
            total = 0.0
            for row in own:
                for s, amount in enumerate(row):
                    if (source_S[s] if s < len(source_S) else "END") == other:
                        total += amount
            has[other] = total / len(own)
        best = max(has, key=has.get)
        if best != "END":
            links.add((best, word))
    return links


@pytest.mark.parametrize("setting", ["AWO", "AWI"])
def test_links_are_those_of_a_slow_loop(setting):
    sizes = set()
    for seed in range(17):
        for map_TS in drawn(seed):
            found = alignment.links_of(map_TS, SOURCE_S, TARGET_T, setting)
            assert found == slow(map_TS, SOURCE_S, TARGET_T, setting)
            sizes.add(len(found))
    assert len(sizes) > 1


def test_a_target_word_has_one_link_or_where_end_has_most_none():
    map_TS = drawn(0)[0]
    map_TS[:, -1] = 0
    for setting in alignment.STEPS:
        found = alignment.links_of(map_TS, SOURCE_S, TARGET_T, setting)
        assert sorted(t for _, t in found) == [0, 1, 2, 3]
        moved = map_TS.copy()
        moved[[2, 3], -1] = 99.0  # the only piece of the second target word: row 2 predicts it, row 3 is fed with it
        assert alignment.links_of(moved, SOURCE_S, TARGET_T, setting) == {
            (s, t) for s, t in found if t not in {"AWO": (1, 2), "AWI": (0, 1)}[setting]
        }


def test_the_settings_are_the_same_map_a_step_apart():
    """A map whose steps look at the word they predict is right with output, one step later with input."""
    size = 5
    looks = np.zeros((size + 1, size + 1))
    looks[np.arange(size), [3, 1, 4, 0, 2]] = 1.0
    right = {(3, 0), (1, 1), (4, 2), (0, 3), (2, 4)}
    assert alignment.links_of(looks, range(size), range(size), "AWO") == right
    assert alignment.links_of(np.roll(looks, 1, 0), range(size), range(size), "AWI") == right


@pytest.mark.parametrize("setting", ["AWO", "AWI"])
def test_a_map_of_words_is_its_own_and_heads_are_taken_one_by_one(setting):
    maps = drawn(1)
    alone = [alignment.to_words(map_TS, SOURCE_S, TARGET_T, setting) for map_TS in maps]
    np.testing.assert_allclose(alignment.to_words(maps, SOURCE_S, TARGET_T, setting), alone)
    assert alone[0].shape == (4, 8)
    whole = alignment.to_words(maps, range(11), range(7), setting)
    np.testing.assert_array_equal(whole, maps[:, alignment.STEPS[setting]])


def test_rows_that_sum_to_one_still_do():
    maps = drawn(2)
    maps /= maps.sum(-1, keepdims=True)
    np.testing.assert_allclose(alignment.to_words(maps, SOURCE_S, TARGET_T, "AWI").sum(-1), 1.0)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_links_do_not_depend_on_the_scale(factor):
    """Norms do not sum to one."""
    map_TS = drawn(3)[0]
    found, scaled = (alignment.links_of(of, SOURCE_S, TARGET_T, "AWO") for of in (map_TS, factor * map_TS))
    assert found == scaled


@pytest.mark.parametrize(
    ("source_S", "target_T", "message"),
    [
        (SOURCE_S[1:], TARGET_T, r"expected \(…, 8, 11\)"),
        (SOURCE_S, TARGET_T[:-1], r"expected \(…, 7, 12\)"),
        ([w + 1 for w in SOURCE_S], TARGET_T, "expected numbers from 0 in order, none left out"),
        (SOURCE_S, [2 * w for w in TARGET_T], "none left out"),
        (SOURCE_S[::-1], TARGET_T, "in order"),
    ],
)
def test_maps_and_words_that_do_not_fit_are_value_errors(source_S, target_T, message):
    with pytest.raises(ValueError, match=message):
        alignment.links_of(drawn(0)[0], source_S, target_T, "AWO")


def test_a_run_of_dates(trained, capsys):
    """Counts of every layer and head are those of links that are found pair by pair, without other pairs beside them."""
    loaded = runs.Loaded(trained[0], print)
    source, data = loaded.task.source, loaded.task.data
    gold, characters = alignment.known(loaded, None, None, 1, False)
    assert characters
    few = type(gold)(*(side[:7] for side in gold))
    found = alignment.align(loaded.task, loaded.params, few, loaded.place, characters=True)
    texts = source.read(data, "test")
    alone = {(kind, setting): [] for kind in ("weights", "norms") for setting in alignment.STEPS}
    for n in range(7):
        pair = [texts.source[n]], [texts.target[n]]
        (rows, layers), *others = loaded.task.forced(loaded.params, pair, loaded.place)
        at = rows.tolist().index(0)
        assert not others
        cross = {name: trace for name, trace in layers.items() if "cross" in name}
        (block,) = blocks.blocks(loaded.params, cross, loaded.task.model.config).values()
        # The first token is white space that the vocabulary puts in front; it and the first character are one.
        owners = [[0, *range(len(text))] for (text,) in pair]
        for kind, map_BKTS in alignment.maps(block, 1e-5).items():
            if kind in ("weights", "norms"):
                cut = map_BKTS[at, :, : len(owners[1]) + 1, : len(owners[0]) + 1]
                for setting in alignment.STEPS:
                    alone[kind, setting].append([alignment.links_of(map_TS, *owners, setting) for map_TS in cut])
    for (kind, setting), of_pairs in alone.items():
        expected = [links.count(list(of_map), few) for of_map in zip(*of_pairs, strict=True)]
        assert found.counts(kind, setting) == [expected]
    paths = alignment.draw(trained[0])
    assert all(path.stat().st_size > 0 for path in paths)
    report = json.loads(paths[-1].read_text())
    assert report["oracle"] <= np.min(report["weights"]["AWI"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pairs"] == len(gold.sure)


def test_the_layer_is_chosen_by_norms(trained):
    """The mean of weights is the same in all layers: their rows sum to 1."""
    loaded = runs.Loaded(trained[0], print)
    gold, _ = alignment.known(loaded, None, None, 1, False)
    found = alignment.align(loaded.task, loaded.params, type(gold)(*(side[:3] for side in gold)), loaded.place, characters=True)
    assert "weights" not in found.sizes
    assert found.chosen("norms") == 0


def found_of(gold, seed: int) -> alignment.Found:
    """What three layers of two heads might have found."""
    rng = np.random.default_rng(seed)
    drawn = lambda: [rng.integers(0, len(s) + 1, (3, 3, len(t))) for s, t in zip(gold.source, gold.target, strict=True)]
    best = {kind: {setting: drawn() for setting in alignment.STEPS} for kind in ("weights", "norms")}
    return alignment.Found(gold, best, {}, {"norms": rng.random((3, 3))})


def test_both_directions_are_made_one():
    """By hand, of the layer chosen; whichever direction is called forward the rates are the same."""
    words = lambda *lengths: [["w"] * length for length in lengths]
    gold = Gold(words(5, 3, 7), words(2, 3, 4), [{(0, 0), (4, 1)}, {(2, 0)}, set()], [{(0, 0), (4, 1)}, {(2, 0), (1, 1)}, {(6, 2)}])
    forward, backward = found_of(gold, 0), found_of(links.other_way(gold), 1)
    found = alignment.both(forward, backward)
    assert found.keys() == {"weights", "norms"}
    for kind, settings in found.items():
        for setting, rates in settings.items():
            one = forward.links(kind, setting, forward.chosen("norms"))
            other = [{(s, t) for t, s in of} for of in backward.links(kind, setting, backward.chosen("norms"))]
            for rule, make in (("union", set.union), ("intersection", set.intersection)):
                both = [make(*map(set, pair)) for pair in zip(one, other, strict=True)]
                assert rates[rule] == links.count(both, gold).error_rate
    again = alignment.both(backward, forward)
    for kind, settings in found.items():
        for setting, rates in settings.items():
            assert {rule: again[kind][setting][rule] for rule in rates if rule != "grow_diagonal_final"} == {
                rule: rate for rule, rate in rates.items() if rule != "grow_diagonal_final"
            }


def test_the_other_run_translates_the_other_way(trained, monkeypatch):
    with pytest.raises(InputError, match="nobody translates these data back; expected --workdir alone"):
        alignment.draw(trained[0], back=trained[0])
    of = lambda source, target: SimpleNamespace(task=SimpleNamespace(data=SimpleNamespace(source=source, target=target)))
    monkeypatch.setattr(alignment, "load", lambda workdir, tell: of("en", "de" if workdir == "x" else "fr"))
    monkeypatch.setattr(alignment, "known", lambda *given: (None, False))
    with pytest.raises(InputError, match="--back=x translates en to de; expected fr to en, the other way"):
        alignment.draw("y", back="x")


def test_characters_want_tokens_as_short(trained):
    loaded = runs.Loaded(trained[0], print)
    gold, _ = alignment.known(loaded, None, None, 1, False)
    loaded.task.vocabulary = Subwords.train(map("".join, gold.source), 100)
    with pytest.raises(InputError, match=r"are of characters, and this run's tokens are longer; expected task\.subwords=0"):
        alignment.align(loaded.task, loaded.params, gold, loaded.place, characters=True)


def test_what_is_not_to_be_had(trained, tmp_path):
    loaded = runs.Loaded(trained[0], print)
    with pytest.raises(InputError, match="--links and --text belong together"):
        alignment.known(loaded, "links", None, 1, False)
    with pytest.raises(InputError, match="--workdir is missing"):
        alignment.draw(None)
    config = classification.get_config("tiny")
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="is no run of translation; expected one, whose cross-attention has alignments"):
        alignment.draw(tmp_path / "run")
