"""Settings are one thing in three forms: a config for flags, frozen dataclasses, JSON; and what does not fit is refused by name."""

import dataclasses
import importlib
import json
import pathlib

import pytest

import configs
from attention_variants import variants
from attention_variants.errors import InputError
from attention_variants.train import settings

FOLDER = pathlib.Path(configs.__file__).parent
FILES = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if path.stem not in ("__init__", "common")
)
TRANSLATION = ("", "tiny", "data=multi30k", "data=multi30k,source=en,target=fr,size=base", "data=parallel_text,size=big")


def parsed(name: str, arg: str | None):
    return settings.parse(importlib.import_module(name).get_config(arg))


def test_there_are_config_files():
    assert "configs.translation" in FILES


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_parses_and_starts_with_a_page_of_help(name):
    assert hash(parsed(name, None)) == hash(parsed(name, None))
    text = importlib.import_module(name).__doc__
    assert "python main.py --config=" in text
    assert len(text.splitlines()) > 3


@pytest.mark.parametrize(
    ("name", "arg"), [*((name, None) for name in FILES), *(("configs.translation", arg) for arg in TRANSLATION)]
)
def test_round_trip(name, arg):
    """Dataclasses, the dictionary, JSON and back: the same settings, and the same hash, which linen modules need."""
    first = parsed(name, arg)
    again = settings.parse(json.loads(json.dumps(first.as_dict())))
    assert again == first
    assert hash(again) == hash(first)
    assert again.as_dict() == first.as_dict()


def test_tiny_is_smaller():
    assert parsed("configs.translation", "tiny").model.width < parsed("configs.translation", None).model.width


@pytest.mark.parametrize("name", variants.names())
def test_every_variant_can_be_chosen(name):
    assert parsed("configs.translation", f"variant={name}").name("variant") == name


def test_the_defaults_of_a_config_are_those_of_the_dataclasses(make_config):
    config = make_config("")
    assert dict(config.parallel) | {"devices": 0} == dataclasses.asdict(settings.Parallel())
    assert config.optimizer.b2 == settings.Optimizer().b2
    assert config.is_locked


def test_a_config_has_every_setting_and_no_other(make_config):
    config = make_config("")
    assert set(config) == {f.name for f in dataclasses.fields(settings.Settings)}
    for section, values in settings.parse(config).as_dict().items():
        assert set(config[section]) == set(values), section


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hypers": {"learning_rat": 1.0}}, r"unknown key in config\.hypers 'learning_rat'; did you mean 'learning_rate'\?"),
        ({"data": {"name": "dates", "subwords": 3}}, r"unknown key in config\.data 'subwords'"),
        ({"variant": {"name": "standard", "alpha": 1}}, r"unknown key in config\.variant 'alpha'; choose from \(none\)"),
        ({"optimiser": {}}, r"unknown config section 'optimiser'; did you mean 'optimizer'\?"),
        ({"data": {"name": "date"}}, r"unknown data 'date'; did you mean 'dates'\?"),
        ({"task": {"name": "transaltion"}}, r"unknown task 'transaltion'; did you mean 'translation'\?"),
        ({"model": {"name": "heads"}}, r"unknown model 'heads'.* choose from classifier, .*transformer"),
        ({"variant": {"name": "standrad"}}, r"unknown variant 'standrad'; did you mean 'standard'\?"),
        ({"variant": {"name": "os.path"}}, r"unknown variant 'os\.path'"),
        ({"variant": {}}, r"config section variant has no name"),
        ({"optimizer": {"schedule": "cosin"}}, r"unknown value of config\.optimizer\.schedule 'cosin'; did you mean 'cosine'\?"),
        ({"parallel": {"backend": "pmpa"}}, r"unknown value of config\.parallel\.backend 'pmpa'; did you mean 'pmap'\?"),
        ({"model": {"name": "transformer", "norm": "Post"}}, r"unknown value of config\.model\.norm 'Post'; did you mean 'post'\?"),
        ({"model": {"name": "transformer", "route": "densee"}}, r"'densee'; did you mean 'dense'\?"),
        (
            {"model": {"name": "transformer", "heads": 7}},
            r"model\.heads is 7, which does not divide model\.width 512; the nearest that does is 8",
        ),
        ({"model": {"name": "transformer", "width": 63, "heads": 1}}, r"model\.width is 63; expected an even number"),
        ({"model": {"name": "transformer", "layers": 0}}, r"model\.layers is 0"),
        ({"run": {"seed": -1}}, r"run\.seed is -1"),
        ({"run": {"seed": 2**32}}, r"run\.seed is 4294967296"),
        ({"run": {"seed": 1.5}}, r"config\.run\.seed is 1\.5; expected int"),
        ({"run": {"seed": True}}, r"config\.run\.seed is True; expected int"),
        ({"run": {"duration": 5}}, r"config\.run\.duration is 5; expected str"),
        ({"run": {"keep": 1}}, r"run\.keep is 1; expected at least 2"),
        ({"log": {"tensorboard": 1}}, r"config\.log\.tensorboard is 1; expected bool"),
        ({"log": {"profile": -1}}, r"log\.profile is -1"),
        ({"optimizer": {"accumulate": 0}}, r"optimizer\.accumulate is 0"),
        ({"optimizer": {"b2": 1.0}}, r"optimizer\.b2 is 1\.0; expected at least 0 and below 1"),
        ({"optimizer": {"clip": -1.0}}, r"optimizer\.clip is -1"),
        ({"optimizer": {"eps": float("nan")}}, r"optimizer\.eps is nan"),
        ({"optimizer": {"clip": True}}, r"config\.optimizer\.clip is True; expected float"),
        ({"parallel": {"devices": -1}}, r"parallel\.devices is -1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_the_nearest(change, message):
    base = {
        section: {"name": name}
        for section, name in (("task", "translation"), ("data", "dates"), ("model", "transformer"), ("variant", "standard"))
    }
    settings.parse(base)
    with pytest.raises(InputError, match=message):
        settings.parse(base | change)


def test_a_whole_number_is_a_float_too():
    assert settings.build(settings.Optimizer, {"clip": 2}, "optimizer").clip == 2.0
    assert type(settings.build(settings.Optimizer, {"clip": 2}, "optimizer").clip) is float


def test_differences_name_every_setting_that_differs(make_config):
    ours, theirs = (settings.parse(make_config(**{"hypers.learning_rate": rate})).as_dict() for rate in (0.1, 0.2))
    assert settings.differences(ours, theirs) == ["hypers.learning_rate: 0.2 there, 0.1 here"]
    assert settings.differences(ours, ours) == []
    del theirs["run"]["keep"], ours["run"]["seed"]
    assert settings.differences(ours, theirs)[1:] == ["run.keep: None there, 2 here", "run.seed: 0 there, None here"]


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("tny", "unknown piece of the config string 'tny'; did you mean 'tiny'"),
        ("data", "the piece 'data' of the config string has no value"),
        ("size=tny", "unknown size 'tny'; did you mean 'tiny'"),
        ("size=big,tiny", "size=big and tiny are two sizes"),
        ("tiny=perhaps", "the piece 'tiny' of the config string is 'perhaps'"),
        ("variant=standrd", "unknown variant 'standrd'; did you mean 'standard'"),
        ("data=multi30", "unknown data 'multi30'; did you mean 'multi30k'"),
        ("data=multi30k,source=en", "data.source and data.target are both 'en'"),
        ("data=multi30k,source=ed", "'ed'"),
    ],
)
def test_config_strings_that_are_refused(arg, message):
    with pytest.raises(InputError) as caught:
        parsed("configs.translation", arg)
    assert message in str(caught.value)
