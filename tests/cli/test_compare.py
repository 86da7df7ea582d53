"""Compare: the figures of several runs in one table."""

import json
import subprocess
import sys
from contextlib import nullcontext

import pytest

import fake_stages
import minimal
from potstill.cli import compare
from potstill.cli.compare import WIDTH, comparison, comparison_table, draw_unasked, write_plot
from potstill.errors import UserError
from potstill.metrics.speed import ModelSpeed, Speed
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.report.compare_page import SIGN

ROW = {"model": "student", "metric": "loss", "value": 4.6812, "low": 4.6, "high": 4.7, "n": 200, "seeds": None}


PAIR = {
    "a": "student",
    "b": "control",
    "metric": "loss",
    "difference": -0.1,
    "low": -0.2,
    "high": -0.05,
    "n": 200,
    "p": 0.01,
    "seeds": None,
    "over_units": None,
}


@pytest.fixture
def stages(monkeypatch):
    return fake_stages.install(monkeypatch)


@pytest.fixture
def do(tmp_path, monkeypatch, stages):
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def evaluate(work):
        (work.folder / "comparison.json").write_text(json.dumps({"rows": [ROW], "paired": [PAIR]}))

    stages.during["evaluate"] = evaluate
    return lambda *overrides, folder="run", **how: run_recipe(minimal.recipe(tmp_path, *overrides), Run(folder), **how)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder; `potstill run RECIPE` makes one under runs/"):
        comparison([tmp_path])


def test_rows_and_differences_of_several_runs(do, tmp_path):
    do()
    do(folder="other")
    rows = comparison([tmp_path / "run", tmp_path / "other"])
    assert [(row["run"], row["model"], row["value"]) for row in rows] == [
        ("run", "student", 4.6812),
        ("run", "student - control", -0.1),
        ("other", "student", 4.6812),
        ("other", "student - control", -0.1),
    ]
    assert {"model", "metric", "value", "low", "high", "n"} <= set(rows[1])


def test_runs_of_one_name_are_told_apart(do, tmp_path):
    do(folder="a/run")
    do(folder="b/run")
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert [row["run"] for row in comparison(folders)[::2]] == [str(folder) for folder in folders]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_without_a_finished_evaluation_has_no_figures(do, stages, tmp_path, stopped):
    def stop(work):
        (work.folder / "comparison.json").write_text(json.dumps({"rows": [ROW], "paired": []}))
        raise KeyboardInterrupt

    stages.during["evaluate"] = stop
    with pytest.raises(KeyboardInterrupt) if stopped else nullcontext():
        do(until="evaluate" if stopped else "distil")
    with pytest.raises(UserError, match="run has no evaluation yet; `potstill status"):
        comparison([tmp_path / "run"])


def test_a_table_for_people():
    rows = [{"run": "a", **ROW}, {"run": "b", **ROW, "model": "student - control"}]
    assert comparison_table(rows).splitlines() == [
        "run  model              metric  value  low  high  n",
        "a    student            loss    4.681  4.6  4.7   200",
        "b    student - control  loss    4.681  4.6  4.7   200",
    ]


def test_several_metrics_are_columns():
    rows = [
        {"run": "a", **ROW},
        {"run": "b", **ROW, "metric": "agreement", "n": 190},
        {"run": "b", **ROW, "model": "student - control", "beyond_chance": True},
        {"run": "b", **ROW, "model": "student - control", "metric": "agreement", "beyond_chance": False},
    ]
    assert comparison_table(rows).splitlines() == [
        "run  model              loss                agreement",
        "a    student            4.681 [4.6, 4.7]",
        "b    student                                4.681 [4.6, 4.7]",
        "b    student - control  4.681 [4.6, 4.7] *  4.681 [4.6, 4.7]",
        "     n                  200                 190 to 200",
        "",
        "* beyond chance",
    ]


@pytest.mark.parametrize("count", [2, 5, 30])
def test_many_metrics_fit_a_terminal(count):
    models = ("teacher", "start", "student", "control", "student - control")
    names = [f"task-{n}/acc" for n in range(count)]
    rows = [{"run": "mine", **ROW, "model": model, "metric": name} for model in models for name in names]
    lines = comparison_table(rows).splitlines()
    assert max(map(len, lines)) <= WIDTH
    heads = [line.split() for line in lines if line.startswith("run")]
    assert [name for head in heads for name in head[2:]] == names
    assert all(sum(line.startswith(f"mine  {model}  ") for line in lines) == len(heads) for model in models[:4])
    assert len(heads) == 1 or len(lines[0]) + len("  4.681 [4.6, 4.7]") > WIDTH, "no table is narrower than it may be"


def test_figures_of_several_metrics_keep_seeds_and_lm_evals_errors():
    own = [{"value": 0.5, "stderr": 0.01234567}]
    rows = [{"run": "a", **ROW, "lm_eval": own}, {"run": "a", **ROW, "metric": "x", "seeds": {"values": [4.6, 4.75]}}]
    line = comparison_table(rows).splitlines()[1]
    assert "4.681 [4.6, 4.7] (stderr 0.01235)" in line
    assert "4.681 [4.6, 4.7] (seeds 4.6, 4.75)" in line


def test_a_table_shows_seeds_where_there_are_any():
    rows = [{"run": "a", **ROW, "seeds": {"values": [4.6, 4.75]}}, {"run": "a", **ROW}]
    lines = comparison_table(rows).splitlines()
    assert lines[0].endswith("n    seeds")
    assert lines[1].endswith("200  4.6, 4.75")
    assert lines[2].endswith("200")


def test_in_columns_a_mark_says_which_differences_have_too_few_units():
    few = {"run": "a", **ROW, "model": "student - control", "n": 9, "beyond_chance": False}
    rows = [few, {**few, "metric": "agreement", "n": 200}, {**few, "metric": "bits", "n": 200, "beyond_chance": True}]
    *_, numbers, blank, first, second = comparison_table(rows).splitlines()
    assert numbers.split() == ["n", "9", "200", "200"]
    assert (blank, first, second) == ("", "* beyond chance", "? too few to tell")
    assert comparison_table(rows).count("] ?") == comparison_table(rows).count("] *") == 1


def test_intervals_of_another_version_are_refused_by_name(do, stages, tmp_path, monkeypatch):
    do()
    monkeypatch.setattr("potstill.cli.compare.INTERVALS", 0)
    with pytest.raises(UserError, match=r"run: another version of potstill .* run the recipe again, which computes"):
        comparison([tmp_path / "run"])


def test_an_evaluation_with_intervals_of_another_version_is_made_anew(do, tmp_path, monkeypatch, capsys):
    do()
    monkeypatch.setattr("potstill.pipeline.recipe_inputs.INTERVALS", 0)
    do()
    assert "evaluate: intervals changed, so it begins anew" in capsys.readouterr().out


def test_differences_say_whether_they_are_within_chance_and_tasks_show_lm_evals_errors():
    difference = {
        "run": "a",
        "model": "student - control",
        "metric": "piqa/acc",
        "value": 0.1,
        "low": 0.0,
        "high": 0.2,
        "n": 10,
    }
    own = [{"value": 0.5, "stderr": 0.01234567}, {"value": 0.6, "stderr": 0.02}]
    rows = [
        {"run": "a", **ROW, "metric": "piqa/acc", "lm_eval": own},
        {**difference, "beyond_chance": False},
        {**difference, "beyond_chance": True},
        {**difference, "beyond_chance": False, "n": 9},
    ]
    head, *lines = comparison_table(rows).splitlines()
    assert head.split() == ["run", "model", "metric", "value", "low", "high", "n", "chance", "stderr"]
    assert lines[0].endswith("0.01235, 0.02")
    assert lines[1].endswith("within chance")
    assert lines[2].endswith("beyond chance")
    assert lines[3].endswith("too few to tell")


def test_the_marks_of_tasks_are_corrected_for_all_of_them(do, stages, tmp_path):
    metrics = [{"name": name, "family": "tasks"} for name in ("a/acc", "b/acc")]
    pairs = [PAIR | {"metric": metric["name"], "p": 0.03} for metric in metrics]
    whole = {"rows": [ROW], "paired": [PAIR | {"p": 0.03}, *pairs], "tasks": {"metrics": metrics, "lm_eval": {}}}
    stages.during["evaluate"] = lambda work: (work.folder / "comparison.json").write_text(json.dumps(whole))
    do()
    assert [row["beyond_chance"] for row in comparison([tmp_path / "run"])[1:]] == [True, False, False]


def test_a_damaged_evaluation_is_refused_by_name(do, stages, tmp_path):
    do()
    file = tmp_path / "run" / "evaluate" / "made" / "line.txt"
    file.write_text(file.read_text()[::-1])
    with pytest.raises(
        UserError, match=r"evaluate/made/line.txt is damaged; run the recipe again, which makes it anew"
    ):
        comparison([tmp_path / "run"])
    do()
    assert comparison([tmp_path / "run"])


SPEEDS = Speed(
    (
        ModelSpeed("teacher", 100, 400, "float32", 500, {"decode": (10.0, 12.0)}),
        ModelSpeed("student", 50, 200, "float32", 250, {"decode": (20.0, 23.0)}),
    ),
    "cpu",
    2,
    4,
    16,
    8,
)
WAY = [{**ROW, "model": model, "value": value} for model, value in (("teacher", 3.0), ("start", 5.0), ("student", 4.0))]


@pytest.fixture
def measured(do, tmp_path, monkeypatch):
    """Two runs, of which only the first has a speed."""
    do()
    do(folder="other")
    plain = compare._evaluation

    def evaluation(folder):
        manifest, _ = plain(folder)
        summary = {"speed": json.loads(json.dumps(SPEEDS.to_dict()))} if folder.name == "run" else {}
        return manifest | {"summary": summary}, {"rows": [{"over_units": None, **row} for row in WAY], "paired": []}

    monkeypatch.setattr(compare, "_evaluation", evaluation)
    return tmp_path / "run", tmp_path / "other"


def test_a_plot_has_the_points_of_every_run_with_a_speed(measured, tmp_path):
    write_plot(tmp_path / "plot.html", measured)
    page = (tmp_path / "plot.html").read_text(encoding="utf-8")
    assert "run: student" in page
    assert "50%" in page
    assert "other is left out" in page


def test_several_runs_are_drawn_for_a_person_at_a_terminal(measured, tmp_path):
    told = draw_unasked(measured, at_terminal=True)
    assert told == "compare.html draws quality against speed and size of these runs"
    assert "run: student" in (tmp_path / "compare.html").read_text(encoding="utf-8")
    # A page of its own is made anew.
    (tmp_path / "compare.html").write_text(SIGN, encoding="utf-8")
    assert draw_unasked(measured, at_terminal=True) == told
    assert "run: student" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_a_script_gets_no_file_that_it_did_not_ask_for(measured, tmp_path):
    assert draw_unasked(measured, at_terminal=False).startswith("`--plot FILE.html` draws")
    assert not (tmp_path / "compare.html").exists()


def test_a_page_of_somebody_else_stays_as_it_is(measured, tmp_path):
    (tmp_path / "compare.html").write_text("mine")
    assert "stays as it is" in draw_unasked(measured, at_terminal=True)
    assert (tmp_path / "compare.html").read_text() == "mine"


def test_where_nothing_can_be_drawn_the_table_is_no_failure(measured):
    assert "there is nothing to draw" in draw_unasked(measured[1:], at_terminal=True)


def test_without_any_speed_there_is_no_plot(measured, tmp_path):
    with pytest.raises(UserError, match="there is nothing to draw, because no run has a measured speed"):
        write_plot(tmp_path / "plot.html", measured[1:])
    assert not (tmp_path / "plot.html").exists()


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("", "is a folder"),
        ("nowhere/plot.html", "a folder that is not there"),
        ("run/recipe.json/plot.html", "a folder that is not there"),
        ("/proc/plot.html", "/proc/plot.html cannot be written"),
    ],
)
def test_a_plot_needs_a_place(measured, tmp_path, file, wrong):
    with pytest.raises(UserError, match=wrong):
        write_plot(tmp_path / file, measured)


def test_comparing_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'vl_convert'}"
    code = f"import sys, potstill.cli.compare; print(*{heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
