"""The section `format`: both formats are measured, and the chosen one is compared with the faster."""

import pytest
import torch

from benchmarks import number_format
from benchmarks.models import Shape
from benchmarks.number_format import choice, section
from benchmarks.run import Settings
from potstill.device import ProductTimes

CPU = torch.device("cpu")


def test_every_kind_of_work_is_measured_in_both_formats(monkeypatch):
    monkeypatch.setattr(number_format, "shape", lambda settings: Shape(300, 64, 1, 1, rows=2, length=8))
    tables, measured = section(Settings(CPU, quick=True, rounds=1))
    assert [one.key for one in measured] == ["format"] * 3
    assert all(one.median >= 1 for one in measured), "the chosen format is at best the faster one"
    assert [row[0].partition(":")[0] for row in tables[0].rows] == ["capture", "training", "evaluation"]


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [((2.0, 2.0), (1.0, 1.0), "bf16"), ((1.0, 1.0), (2.0, 2.0), "fp32"), ((2.0, 1.0), (1.0, 2.0), "fp32")],
)
def test_a_cpu_s_choice_is_that_of_a_run(fp32, bf16, chosen, monkeypatch):
    monkeypatch.setattr(number_format, "time_products", lambda *widths: ProductTimes(1, 1, 1, fp32, bf16))
    assert choice(CPU, 8)[0] == chosen
