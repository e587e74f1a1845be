"""What a run's maps come to is what each pair's own maps come to, one by one; two directions are made one; and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from attention_variants.analysis import alignment, blocks, translators, word_maps
from attention_variants.data import links
from attention_variants.data.links import Gold
from attention_variants.data.subwords import Subwords
from attention_variants.errors import InputError
from attention_variants.train import loop, runs
from configs import classification
from tests.cases.word_maps import links_of


def test_a_run_of_dates(trained, capsys):
    """Counts of every layer and head are those of links that are found pair by pair, without other pairs beside them."""
    loaded = runs.Loaded(trained[0], print)
    source, data = loaded.task.source, loaded.task.data
    gold, characters = alignment.known(loaded, None, None, 1, False)
    assert characters
    few = type(gold)(*(side[:7] for side in gold))
    found = alignment.align(translators.of_run(loaded, characters=True), few, "")
    texts = source.read(data, "test")
    alone = {(kind, setting): [] for kind in ("weights", "norms") for setting in word_maps.STEPS}
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
                for setting in word_maps.STEPS:
                    alone[kind, setting].append([links_of(map_TS, *owners, setting) for map_TS in cut])
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
    few = type(gold)(*(side[:3] for side in gold))
    found = alignment.align(translators.of_run(loaded, characters=True), few, "")
    assert "weights" not in found.sizes
    sizes = np.array([[0.1, 9.0], [0.9, 0.0], [0.3, 5.0]])  # of heads it does not matter
    assert found._replace(sizes={"norms": sizes}).chosen("norms") == 1


def found_of(gold, seed: int) -> alignment.Found:
    """What three layers of two heads might have found."""
    rng = np.random.default_rng(seed)
    drawn = lambda: [rng.integers(0, len(s) + 1, (3, 3, len(t))) for s, t in zip(gold.source, gold.target, strict=True)]
    best = {kind: {setting: drawn() for setting in word_maps.STEPS} for kind in ("weights", "norms")}
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
            rules = links.SYMMETRISED | {"union": set.union, "intersection": set.intersection}
            for rule, make in rules.items():
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
    of = lambda workdir, *names: SimpleNamespace(
        workdir=workdir, task=SimpleNamespace(data=SimpleNamespace(**dict(zip(("source", "target"), names, strict=False))))
    )
    monkeypatch.setattr(alignment.translators, "of_run", lambda loaded: "asked")
    for there, here, message in (
        (of("x", "en", "de"), of("y", "en", "fr"), "--back=x translates en to de; expected fr to en, the other way"),
        (of("y"), of("y"), "--back=x is --workdir itself; expected a run that translates the other way"),
        (of("x", "fr", "en"), of("y", "en", "fr"), None),
        (of("x"), of("y", "en", "fr"), None),  # of one's own text nobody knows the language
    ):
        monkeypatch.setattr(alignment.runs, "Loaded", lambda workdir, tell, there=there: there)
        if message is None:
            assert alignment._back(here, "x", print) == "asked"
        else:
            with pytest.raises(InputError, match=message):
                alignment._back(here, "x", print)


def test_characters_want_tokens_as_short(trained):
    loaded = runs.Loaded(trained[0], print)
    gold, _ = alignment.known(loaded, None, None, 1, False)
    loaded.task.vocabulary = Subwords.train(map("".join, gold.source), 100)
    with pytest.raises(InputError, match=r"are of characters, and this run's tokens are longer; expected task\.subwords=0"):
        alignment.align(translators.of_run(loaded, characters=True), gold, "")


def test_what_is_not_to_be_had(trained, tmp_path):
    loaded = runs.Loaded(trained[0], print)
    with pytest.raises(InputError, match="--links and --text belong together"):
        alignment.known(loaded, "links", None, 1, False)
    with pytest.raises(InputError, match="--base and --reverse belong to --links; expected neither"):
        alignment.known(loaded, None, None, 0, False)
    for given, message in (
        ((None,) * 5, "found neither of --workdir and --model"),
        (("a", "b", None, None, None), "found both of --workdir and --model"),
        (("a", None, None, None, "c"), "--output=c belongs to --model; expected --workdir alone"),
        ((None, "b", "c", "d", None), "--model is given without --output; expected --model=FOLDER --links=FILE"),
        ((None, "b", None, "d", "e"), "--model is given without --links"),
    ):
        with pytest.raises(InputError, match=message):
            alignment.main(*given, base=1, reverse=False, back=None)
    with pytest.raises(InputError, match="--back=x belongs to --workdir; expected --model without it"):
        alignment.main(None, "b", "c", "d", "e", base=1, reverse=False, back="x")
    config = classification.get_config("tiny")
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="is no run of translation; expected one, whose cross-attention has alignments"):
        alignment.draw(tmp_path / "run")
