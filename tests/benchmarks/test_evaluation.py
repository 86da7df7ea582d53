import torch

from benchmarks import evaluation
from benchmarks.models import Shape
from benchmarks.run import Settings


def test_the_section_has_a_figure_for_each_format(monkeypatch):
    monkeypatch.setattr(evaluation, "shape", lambda settings: Shape(300, 192, 1, 2, rows=1, length=16))
    tables, measured = evaluation.section(Settings(torch.device("cpu"), True, 1))
    assert [(one.key, one.where) for one in measured] == [("evaluation", "fp32"), ("evaluation", "bf16")]
    assert all(one.median > 0 for one in measured)
    for table in tables:
        assert [row[0].split(",")[0] for row in table.rows] == [
            "evaluation of all four",
            "forward: teacher",
            "forward: start",
            "forward: student",
            "forward: control",
        ]
