"""Laws of tables and pages: they say the numbers of the runs, and what a reader must know to believe them."""

import dataclasses
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from attention_variants.errors import InputError
from experiments import ablation as ablations
from experiments import page, report, rows, sweep, tables, written
from experiments.ablation import ROOT, Ablation
from experiments.statistics import holm, mean, paired
from experiments.sweep import axis, chain, product

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ABLATION = Ablation(
    "configs/translation.py",
    chain([{}], axis("model.heads", 2, 8)),
    "test.bleu",
    paper={"heads=8": 25.8},
    source="a paper, table 3",
)
MODULE = SimpleNamespace(ABLATION=ABLATION, __doc__="How many heads? <script>alert(1)</script>\n\nMore & more.")
SEEDS = 5


def row(cell, seed, value, **more):
    environment = {"python": "3.11", "packages": {"jax": "0.10.2"}, "devices": ["cpu"], "commit": "0" * 40}
    costs = {"parameters": 1000, "step_seconds": 0.01, "peak_memory": 2.0**20, "seconds": 60.0, "lanes": 1}
    metrics = {"validation": {"loss": 1.0}, "test": {"bleu": value, "bleu_signature": "words"}}
    return {
        "cell": cell,
        "seed": seed,
        "metrics": metrics,
        "environments": [environment | more],
        "command": "python main.py",
    } | costs


@pytest.fixture
def values():
    return {i: np.random.default_rng(i).normal(30 + i, 0.5, SEEDS) for i in range(3)}


@pytest.fixture
def found(values):
    return [row(cell, seed, values[i][seed]) for i, cell in enumerate(ABLATION.cells) for seed in range(SEEDS)]


def test_a_table_is_the_statistics_of_the_seeds(found, values):
    cells = tables.results(ABLATION, found, SEEDS).cells
    p = holm([paired(values[i], values[0]).p for i in (1, 2)])
    for i, line in enumerate(cells.itertuples()):
        assert (line.mean, line.low, line.high) == pytest.approx(mean(values[i]))
        if i:
            test = paired(values[i], values[0])
            assert (line.difference, line.difference_low, line.difference_high, line.p) == pytest.approx(test)
            assert line.p_holm == pytest.approx(p[i - 1])
    assert np.isnan(cells.difference[0])
    assert cells.paper.tolist()[2] == 25.8


def test_other_numbers_have_means_and_no_test(found, values):
    """Beside the metric, in the table and in every format; a peer that does not know them has none."""
    ablation = dataclasses.replace(ABLATION, also=("validation.loss",), peers={"theirs": None})
    for i, line in enumerate(found):
        line["metrics"]["validation"]["loss"] = float(i)
    peers = [row({"peer": "theirs"}, seed, 1.0) for seed in range(SEEDS)]
    for line in peers:
        del line["metrics"]["validation"]
    results = tables.results(ablation, found + peers, SEEDS)
    for i, line in enumerate(results.cells.to_dict("records")[:3]):
        losses = [float(SEEDS * i + seed) for seed in range(SEEDS)]
        assert tuple(line[name] for name in tables.ends("validation.loss")) == pytest.approx(mean(losses))
    assert np.isnan(results.cells["validation.loss"][3])
    plain = tables.results(dataclasses.replace(ablation, also=()), found + peers, SEEDS)
    pd.testing.assert_frame_equal(results.cells[plain.cells.columns], plain.cells)
    module = SimpleNamespace(ABLATION=ablation, __doc__="What?")
    assert "7.0 ± 2.0" in written.lines(module, results)[1][written.header(module, results).index("validation.loss")]


def test_the_order_of_rows_changes_nothing(found):
    a, b = tables.results(ABLATION, found, SEEDS), tables.results(ABLATION, found[::-1], SEEDS)
    pd.testing.assert_frame_equal(a.cells, b.cells)


def test_missing_seeds_are_marked_and_differences_are_of_shared_ones(found, values):
    """The baseline lacks seed 1, a cell lacks seed 4."""
    kept = [r for r in found if (r["cell"], r["seed"]) not in [({}, 1), ({"model.heads": 2}, 4)]]
    results = tables.results(ABLATION, kept, SEEDS)
    assert "Seeds are missing: as configured (4 of 5), heads=2 (4 of 5)" in results.notes[0]
    line = results.cells.loc[1]
    assert (line.missing, line.pairs) == (1, 3)
    assert line.difference == pytest.approx(np.mean((values[1] - values[0])[[0, 2, 3]]))
    assert [cells[5] for cells in written.lines(MODULE, results)] == ["4 of 5!", "4 of 5!", "5"]


def test_a_cell_without_a_run_is_a_line_without_numbers(found):
    results = tables.results(ABLATION, [r for r in found if r["cell"] != {"model.heads": 8}], SEEDS)
    assert len(results.cells) == 3
    assert written.lines(MODULE, results)[2][1:4] == ["", "", ""]
    assert "heads=8 (0 of 5)" in results.notes[0]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"commit": "1" * 40}, "Mixed commits: 000000000000 (14 runs), 111111111111 (1 runs)"),
        ({"commit": "0" * 40 + "-dirty"}, "000000000000-dirty (1 runs)"),
        ({"devices": ["NVIDIA H100"]}, "Mixed devices: cpu (14 runs), NVIDIA H100 (1 runs)"),
        ({"packages": {"jax": "0.11.0"}}, "Mixed versions of jax: 0.10.2 (14 runs), 0.11.0 (1 runs)"),
        ({"packages": {}}, "Mixed versions of jax: 0.10.2 (14 runs), none (1 runs)"),
        ({"commit": "v0.10.0-rc1-5-g" + "2" * 40}, "v0.10.0-rc1-5-g222222222222 (1 runs)"),
        ({"python": "3.12"}, "Mixed versions of Python: 3.11 (14 runs), 3.12 (1 runs)"),
    ],
)
def test_mixed_tables_say_so_on_top(found, changed, sentence):
    found[7]["environments"][0] |= changed
    results = tables.results(ABLATION, found, SEEDS)
    assert any(sentence in note for note in results.notes)
    markdown = written.in_markdown("x", MODULE, results)
    assert markdown.index("Mixed") < markdown.index("| cell")
    assert not tables.results(ABLATION, found[:7], SEEDS).notes[1:]


def test_a_run_that_was_resumed_elsewhere_is_mixed_by_itself(found):
    found[7]["environments"].append(found[7]["environments"][0] | {"commit": "1" * 40})
    notes = tables.results(ABLATION, found, SEEDS).notes
    assert notes == ["Mixed commits: 000000000000 (15 runs), 111111111111 (1 runs)."]


def test_every_cell_is_in_a_figure_of_the_page():
    """Those that differ from the baseline in one thing by what it is; a product's corners are in one of all cells."""

    def across(cells):
        ablation = Ablation("configs/translation.py", cells, "test.bleu")
        figures = page._against(ablation, [row(cell, seed, 30.0 + seed) for cell in cells for seed in range(2)])
        return [sum(sweep.name(cell) in figure for cell in cells) for figure in figures], len(figures)

    assert across(product(axis("model.heads", 2, 4), axis("model.layers", 3, 5))) == ([0, 0, 4], 3)
    assert across(chain([{}], axis("model.heads", 2, 4), axis("model.layers", 3, 5)))[1] == 2


def test_markdown_csv_and_latex_have_the_same_cells(found):
    results = tables.results(ABLATION, found, SEEDS)
    lines = written.lines(MODULE, results)
    markdown = [line for line in written.in_markdown("x", MODULE, results).splitlines() if line.startswith("| ")]
    assert [[c.strip() for c in line.strip("|").split("|")] for line in markdown[1:]] == lines
    latex = [line for line in written.in_latex("x", MODULE, results).splitlines() if line.endswith(r"\\")]
    assert len(latex) == 1 + len(lines)
    assert all(line.count("&") == len(lines[0]) - 1 for line in latex)
    assert "test.bleu" in latex[0]
    csv = pd.read_csv(io.StringIO(written.in_csv("x", MODULE, results)))
    pd.testing.assert_frame_equal(csv, results.cells, check_dtype=False, rtol=1e-12)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.91234, 0.90011, 0.92457), "0.912 ± 0.012"),
        ((38.81, 38.5, 39.12), "38.81 ± 0.31"),
        ((1234.5, 1200.0, 1269.0), "1234 ± 34"),
        ((0.5, 0.5, 0.5), "0.5000 ± 0.0000"),
        ((0.5, math.nan, math.nan), "0.5"),
        ((math.nan, math.nan, math.nan), ""),
        ((1.0, 0.9, 1.3), "1.00 [0.90, 1.30]"),
    ],
)
def test_a_number_is_written_to_the_digits_that_mean_something(numbers, text):
    assert written._interval(*numbers) == text


def test_a_metric_that_no_run_found_is_refused(found):
    with pytest.raises(InputError, match=r"unknown metric 'test.blue'; did you mean 'test.bleu'"):
        tables.results(Ablation("configs/translation.py", ABLATION.cells, "test.blue"), found, SEEDS)


def test_sentences_are_bootstrapped_where_answers_are_kept(found, tmp_path):
    """Columns of their own, in every form; without the answers of one run there are none."""
    plan = ablations.plan(ABLATION, tmp_path, SEEDS)
    for number, run in enumerate(plan):
        run.workdir.mkdir(parents=True)
        (run.workdir / "DONE").write_text("")
        line = "the {} dogs run over grass"
        answers = [{"source": "", "reference": line.format(n), "answer": line.format(n + number % 3)} for n in range(13)]
        (run.workdir / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    plain = tables.results(ABLATION, found, SEEDS)
    results = tables.with_sentences(plain, ABLATION, plan)
    assert (results.cells.sentences_low <= results.cells.sentences_high).all()
    assert np.isnan(results.cells.sentences_p).tolist() == [True, False, False]
    assert "over sentences" in written.in_markdown("x", MODULE, results)
    assert "p (sentences)" in page.html("x", MODULE, plan, found, results)
    (plan[3].workdir / "answers.jsonl").unlink()
    assert tables.with_sentences(plain, ABLATION, plan) is plain


# Rows that outlive the runs.
def test_rows_are_kept_read_and_not_run_again(launched, small, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    _, module = ablations.load(str(small))
    plan = ablations.plan(module.ABLATION, launched, 2, tiny=True)
    assert rows.record("small", plan) == len(plan)
    kept = rows.committed("small")
    assert kept == [rows.of(run) for run in plan]
    assert str(ROOT) not in json.dumps(kept)
    elsewhere = ablations.plan(module.ABLATION, tmp_path / "other", 3, tiny=True)
    assert [rows.holding(kept, run) is not None for run in elsewhere] == [True, True, False] * 3
    # Of another config, a row does not hold; fewer seeds leave those that are there.
    changed = [run._replace(changes=run.changes | {"model.layers": 2}) for run in plan]
    assert not any(rows.holding(kept, run) for run in changed)
    assert rows.record("small", ablations.plan(module.ABLATION, launched, 1, tiny=True)) == len(plan)
    assert rows.committed("small") == kept


def test_a_table_of_rows_on_file_is_of_nothing_else(launched, small, tmp_path, monkeypatch):
    """Whatever runs there are in a folder that the plan would have; and it says what it is of."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    _, module = ablations.load(str(small))
    plan = ablations.plan(module.ABLATION, launched, 2, tiny=True)
    held = [rows.of(run) for run in plan]
    for row in held:
        row["metrics"]["validation"]["loss"] += 100
    found, results = report.of(module, plan, held, None)
    assert found == held
    assert results.cells["mean"].min() > 100
    assert "experiments/results/small.jsonl; a launch with --again runs them anew." in results.method[0]
    _, results = report.of(module, plan, held, launched)
    assert results.cells["mean"].max() < 100


def test_a_report_reads_a_workdir(launched, environment):
    """And says of one that shows nothing that it is tiny."""
    for form, file in (("csv", "table.csv"), ("markdown", "table.md")):
        words = [sys.executable, "-m", "experiments.report", f"--workdir={launched}", f"--format={form}"]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout == (launched / file).read_text()
    assert done.stdout.startswith("**small (tiny)**: ")
    assert "small (tiny)" in (launched / "report.html").read_text()


# The page.


def browse(path, tmp_path, *flags) -> subprocess.CompletedProcess:
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr"]
    return subprocess.run([CHROMIUM, *quiet.split(), *more, *flags, path.as_uri()], capture_output=True, text=True, timeout=120)


def test_everything_from_data_is_escaped(found, tmp_path):
    plan = ablations.plan(ABLATION, tmp_path / "<i>&amp;", SEEDS)
    found[0]["command"] = "python main.py <script>alert(2)</script>"
    found[0]["environments"][0]["commit"] = "<b>"
    text = page.html("x<y", MODULE, plan, found, tables.results(ABLATION, found, SEEDS))
    assert "<script" not in text
    assert "<b>" not in text
    assert "x&lt;y" in text
    assert html.escape("<script>alert(2)</script>") in text
    assert not re.search(r'(src|href)="(?!data:|#)', text), "the page needs nothing but itself"


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_the_page_opens_in_a_browser(launched, tmp_path):
    """Without a complaint on the console; the table has the numbers of the CSV; every figure has its lines or pixels."""
    done = browse(launched / "report.html", tmp_path, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    table = re.search(r'<table id="results">.*?</table>', done.stdout, re.DOTALL)[0]
    csv = pd.read_csv(launched / "table.csv")
    lines = [re.findall(r'data-value="([^"]*)"', line) for line in re.findall("<tr>(.*?)</tr>", table)[1:]]
    assert [html.unescape(line[0]) for line in lines] == csv.cell.tolist()
    for line, expected in zip(lines, csv.itertuples(), strict=True):
        assert float(line[1]) == expected.mean
        assert (float(line[2]) if line[2] else math.nan) == pytest.approx(expected.difference, nan_ok=True, rel=1e-12)
    assert done.stdout.count("<svg") == 4, "two axes, two kinds of curves"
    assert done.stdout.count("<img") == 3
    # What is drawn: the page as a picture has, in the place of every figure, more than its background.
    script = (
        "<script>addEventListener('load', () => { const ok = [...document.querySelectorAll('svg, img')].every(e => { const b ="
        "e.getBoundingClientRect(); return b.width > 100 && b.height > 100 && (e.tagName == 'IMG' ? e.naturalWidth > 0 :"
        "[...e.querySelectorAll('path')].filter(p => p.getBBox().width > 10).length > 3) });"
        "document.title = ok ? 'all drawn' : 'something is missing' })</script>"
    )
    looked = tmp_path / "looked_at.html"
    looked.write_text((launched / "report.html").read_text() + script)
    assert "<title>all drawn</title>" in browse(looked, tmp_path, "--dump-dom").stdout
    broken = tmp_path / "broken.html"
    broken.write_text((launched / "report.html").read_text().replace("data:image/png;base64,", "data:image/png;base64,x") + script)
    assert "<title>something is missing</title>" in browse(broken, tmp_path, "--dump-dom").stdout
