"""The chart of a card."""

from dataclasses import replace

import pytest

from potstill.export.chart import chart
from report.conftest import report


@pytest.mark.parametrize("students", [1, 9])
def test_it_is_a_picture_in_which_every_colour_is_known(students):
    whole = report()
    names = ["student", *(f"student {number}" for number in range(students - 1))]
    (own,) = [row for row in whole.rows if (row.model, row.metric) == ("student", "loss")]
    rows = tuple(row for row in whole.rows if row.model != "student") + tuple(
        replace(own, model=name) for name in names
    )
    assert chart(replace(whole, rows=rows)).startswith(b"\x89PNG")


def test_without_figures_there_is_none():
    assert chart(replace(report(), rows=())) is None
