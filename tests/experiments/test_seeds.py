"""Differences between seeds equal those computed by hand."""

import pytest

from experiments.seeds import differences, table, with_spread


def test_a_table_is_markdown():
    assert table(("a", "b"), [("1", "2")]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_mean_and_spread():
    assert with_spread([1.0, 2.0, 3.0]) == "2.0000 ± 1.0000"


@pytest.mark.parametrize(("shift", "within"), [(0.5, "yes"), (1.5, "**no**")])
def test_a_difference_is_noise_within_the_base_s_own_spread(shift, within):
    base = [1.0, 2.0, 3.0]
    found = {"base": {"loss": base}, "other": {"loss": [base[0] + shift - 0.1, base[1] + shift, base[2] + shift + 0.1]}}
    header, _, row = differences(found, "base", ["loss"])
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["other", "loss"]
    assert cells[2] == f"{shift - 0.1:+.4f}, {shift:+.4f}, {shift + 0.1:+.4f}"
    half = 4.303 * 0.1 / 3**0.5
    interval = f"[{shift - half:+.4f}, {shift + half:+.4f}]"
    assert cells[3:] == [f"{shift:+.4f}", interval, "**yes**", "1.0000", within]
    assert "sd between seeds of base" in header


def test_a_difference_whose_interval_holds_zero_is_not_beyond_zero():
    found = {"base": {"loss": [1.0, 1.0, 1.0]}, "other": {"loss": [1.3, 0.9, 1.1]}}
    _, _, row = differences(found, "base", ["loss"])
    assert [cell.strip() for cell in row.strip("|").split("|")][5] == "no"
