"""Laws of the sweep language, and of ablations as files."""

import itertools
import json

import pytest

from attention_variants.errors import InputError
from experiments import ablation as ablations
from experiments import sweep
from experiments.ablation import Ablation
from experiments.sweep import axis, chain, product, subsample, zipped

A, B, C = axis("model.heads", 1, 2, 4), axis("model.width", 8, 16), axis("variant", "standard")


def test_an_axis_is_a_cell_for_each_value():
    assert A == [{"model.heads": 1}, {"model.heads": 2}, {"model.heads": 4}]


def test_a_product_has_every_combination_once_and_the_last_varies_fastest():
    cells = product(A, B, C)
    pairs = [(cell["model.heads"], cell["model.width"]) for cell in cells]
    assert pairs == list(itertools.product((1, 2, 4), (8, 16)))
    assert all(cell["variant"] == "standard" for cell in cells)
    assert product(A, product(B, C)) == product(product(A, B), C)
    assert product() == [{}]


def test_zipped_cells_go_side_by_side():
    assert zipped(A[:2], B) == [{"model.heads": 1, "model.width": 8}, {"model.heads": 2, "model.width": 16}]
    with pytest.raises(InputError, match="3 and 2 cells; expected as many"):
        zipped(A, B)


def test_a_chain_is_one_after_the_other():
    assert chain([{}], A, B) == [{}, *A, *B]


def test_a_subsample_is_drawn_once_and_for_all():
    many = product(axis("a.x", *range(11)), axis("a.y", *range(13)))
    few = subsample(many, 7, seed=3)
    assert len(few) == 7
    assert few == subsample(many, 7, seed=3) != subsample(many, 7, seed=4)
    assert few == [cell for cell in many if cell in few]
    assert subsample(many, len(many)) == many
    with pytest.raises(InputError, match="a subsample of 144 cells is asked of a sweep of 143"):
        subsample(many, 144)


def test_the_same_key_twice_is_refused():
    with pytest.raises(InputError, match=r"model\.heads is set twice in one cell: 1 and 1"):
        product(A, A)


def test_sweeps_are_new_lists_of_new_dictionaries():
    cells = product(A, [{}])
    cells[0]["model.heads"] = 99
    assert A[0] == {"model.heads": 1}


@pytest.mark.parametrize(
    ("cell", "name", "folder"),
    [
        ({}, "as configured", "as-configured"),
        ({"model.heads": 8, "variant": "rbf"}, "heads=8, variant=rbf", "heads=8,variant=rbf"),
        ({"run.duration": "20 epochs"}, "duration=20 epochs", "duration=20-epochs"),
        ({"a.x": 1, "b.x": 2}, "a.x=1, b.x=2", "a.x=1,b.x=2"),
        ({"data.train_source": "../x/y z"}, "train_source=../x/y z", "train_source=..-x-y-z"),
    ],
)
def test_a_cell_has_a_name_for_people_and_one_for_folders(cell, name, folder):
    assert sweep.name(cell) == name
    assert sweep.folder(cell) == folder
    assert "/" not in folder


# Ablations.

CONFIG = "configs/translation.py:data=dates"


def of(cells, **more):
    return Ablation(CONFIG, cells, "test.exact_match", **more)


def test_runs_are_cells_times_seeds_each_in_a_folder_of_its_own(tmp_path):
    plan = ablations.plan(of(chain([{}], A[1:])), tmp_path, seeds=5, tiny=True)
    assert [(run.cell, run.seed) for run in plan] == list(itertools.product([{}, *A[1:]], range(5)))
    assert len({run.workdir for run in plan}) == len(plan)
    assert all(tmp_path in run.workdir.parents for run in plan)
    assert not list(tmp_path.iterdir())


def test_settings_of_all_cells_come_before_the_cell_and_tiny_does_not_undo_it(tmp_path):
    ablation = of(
        axis("model.layers", 3), settings={"model.layers": 2, "run.duration": "2 epochs"}, tiny={"run.duration": "9 steps"}
    )
    (run,) = ablations.plan(ablation, tmp_path, seeds=1)
    assert (run.settings().model.layers, run.settings().run.duration) == (3, "2 epochs")
    (run,) = ablations.plan(ablation, tmp_path, seeds=1, tiny=True)
    assert (run.settings().model.layers, run.settings().run.duration, run.settings().model.width) == (3, "9 steps", 16)


def test_a_piece_of_a_cell_goes_into_the_config_string(tmp_path):
    (run,) = ablations.plan(of(axis("size", "small")), tmp_path, seeds=1)
    assert run.config == f"{CONFIG},size=small"
    assert run.settings().model.width == 192


def test_the_command_makes_the_settings_of_the_run(tmp_path, python):
    """Parsed by the flags of main.py, in a process of its own, from another folder."""
    cell = {"size": "small", "model.norm": "pre", "hypers.dropout": 0.25, "run.duration": "3 epochs", "task.packed": False}
    (run,) = ablations.plan(of([cell]), tmp_path, seeds=1)
    code = (
        "import sys, json, os; os.chdir('/'); sys.path.insert(0, os.path.dirname(sys.argv[1])); sys.argv = sys.argv[1:];"
        "import main;"
        "from absl import flags; from attention_variants.train import settings, cli; cli.parse(sys.argv);"
        "print(json.dumps(settings.parse(flags.FLAGS.config).as_dict()))"
    )
    assert json.loads(python(code, *run.command()[1:])) == run.settings().as_dict()


def test_runs_have_one_fingerprint_where_their_numbers_are_the_same(tmp_path):
    plan = ablations.plan(of(chain([{}], A[:2], axis("log.every", "3 steps"))), tmp_path, seeds=2)
    prints = [ablations.fingerprint(run.settings()) for run in plan]
    assert prints[:2] == prints[-2:], "how often a run logs changes no number"
    assert len(set(prints)) == len(prints) - 2


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([{"model.hads": 2}], r"cell 0 \(hads=2\): unknown config key in model\.hads: 'hads'; did you mean 'heads'\?"),
        ([{}, {"modl.heads": 2}], r"cell 1 \(heads=2\): unknown config key in modl\.heads: 'modl'; did you mean 'model'\?"),
        ([{}, {"model.heads": "two"}], r"cell 1 \(heads=two\): model\.heads is 'two'; expected int"),
        ([{}, {"model.heads": 3, "model.width": 64}], r"cell 1 .*model\.heads is 3, which does not divide model\.width 64"),
        ([{"variant.name": "standard"}], r"variant\.name cannot be changed; names are pieces of the config string, variant=…"),
        ([{"varant": "rbf"}], r"cell 0 \(varant=rbf\): unknown piece of the config string 'varant'; did you mean 'variant'\?"),
        ([{"variant": "rbff"}], r"cell 0 \(variant=rbff\): unknown variant 'rbff'"),
    ],
)
def test_a_cell_that_no_config_knows_is_named(cells, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        ablations.plan(of(cells), tmp_path, seeds=3)


def test_cells_that_would_share_a_workdir_are_refused():
    with pytest.raises(InputError, match=r"cells 1 \(duration=2 epochs\) and 2 \(duration=2-epochs\) would share a workdir"):
        of(chain([{}], axis("run.duration", "2 epochs", "2-epochs")))


def test_numbers_of_a_paper_belong_to_cells_and_have_a_source():
    with pytest.raises(InputError, match="'head=2'; did you mean 'heads=2'"):
        of(A, paper={"head=2": 1.0}, source="somewhere")
    with pytest.raises(InputError, match="no source"):
        of(A, paper={"heads=2": 1.0})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_this_name", r"does not import: ModuleNotFoundError: .*nothing_of_this_name.* \(line 1\)"),
        ("x = 1\ny = 1 / 0", r"does not import: ZeroDivisionError: .* \(line 2\)"),
        ("x = 1\ny =", r"does not import: SyntaxError: .* \(line 2\)"),
        ("x = 1", "defines no ABLATION"),
    ],
)
def test_a_file_that_is_no_ablation_is_refused_in_one_sentence(text, sentence, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match=sentence) as error:
        ablations.load(str(tmp_path / "bad.py"))
    assert "\n" not in str(error.value)


def test_an_unknown_ablation_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'first_look'"):
        ablations.load("frst_look")


@pytest.mark.parametrize("name", ablations.names())
def test_every_ablation_can_be_planned_and_says_what_it_asks(name, tmp_path):
    found, module = ablations.load(name)
    assert found == name
    assert "?" in module.__doc__.split("\n\n")[0]
    for tiny in (False, True):
        plan = ablations.plan(module.ABLATION, tmp_path, seeds=2, tiny=tiny)
        assert len(plan) == 2 * len(module.ABLATION.cells)
        for run in plan:
            run.settings()
