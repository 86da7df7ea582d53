"""Plots show the figures of the tables that they stand before."""

import re

import pytest

from docs.site.plots import Bar, _panels, with_plots

OF_MODELS = """\
| model | loss | seconds | steady |
| --- | --- | --- | --- |
| teacher | 1.5 [1.2, 1.9] | 7 | 1.0 [0.9, 1.0] |
| student | 2,000.5 ± 0.5 | – | 1.0 [0.9, 1.0] |
"""
BY_SEED = """\
| variant | metric | each seed | mean | 95% interval over seeds | beyond zero |
|---|---|---|---|---|---|
| a | loss | +0.1, -0.3 | -0.1 | [-0.4, +0.2] | no |
| a | kl | +0.1, +0.3 | +0.2 | [+0.1, +0.3] | **yes** |
| b | loss | −1.0, −2.0 | −1.5 | [−2.0, −1.0] | **yes** |
"""


def test_cells_with_intervals_or_deviations_are_drawn():
    loss, seconds, steady = _panels(OF_MODELS)
    assert loss == ("loss", [Bar("teacher", 1.5, 1.2, 1.9), Bar("student", 2000.5, 2000.0, 2001.0)])
    assert (seconds.rows, len(steady.rows)) == ([], 2)


def test_rows_of_one_metric_are_one_panel():
    loss, kl = _panels(BY_SEED)
    assert loss == ("loss, difference", [Bar("a", -0.1, -0.4, 0.2), Bar("b", -1.5, -2.0, -1.0)])
    assert kl.rows == [Bar("a", 0.2, 0.1, 0.3)]


@pytest.mark.parametrize(("table", "named"), [(OF_MODELS, ["loss"]), (BY_SEED, ["loss, difference"])])
def test_a_picture_stands_before_its_table_and_the_text_stays(tmp_path, table, named):
    text = f"# A page\n\nBefore.\n\n{table}\nAfter.\n"
    found = with_plots(text, tmp_path, "page")
    (picture,) = re.findall(r"!\[.*: (.*)\.\]\((\S+)\)\n\n\|", found)
    assert picture[0].split("; ") == named
    assert "<svg" in (tmp_path / picture[1]).read_text()
    assert re.sub(r"!\[.*\n\n", "", found) == text


def test_a_table_without_intervals_stays_as_it_is(tmp_path):
    text = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
    assert with_plots(text, tmp_path, "page") == text
    assert not list(tmp_path.iterdir())
