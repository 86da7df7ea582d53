"""Fake stages that write one line each, so that tests see in milliseconds which steps run."""

import itertools
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from potstill import cost
from potstill.cost import Cost
from potstill.files.atomic import digest
from potstill.pipeline import manifest, run_folder, up_to_date
from potstill.pipeline.graph import STAGES
from potstill.pipeline.work import Made, Work
from potstill.recipe.step import Step


@dataclass
class Stages:
    """What ran, what each stage writes, and what happens while it does."""

    ran: list[str] = field(default_factory=list)
    writes: Callable[[Work], str] = lambda work: digest(up_to_date.inputs_of(work.recipe, work.run, work.step))
    """By default another content for other inputs: whatever could change does."""
    during: dict[str, Callable[[Work], None]] = field(default_factory=dict)

    def run(self, work: Work) -> Made:
        self.ran.append(str(work.step))
        if self.during.get(str(work.step)):
            self.during[str(work.step)](work)
        made = work.folder / "made"
        made.mkdir(exist_ok=True)
        (made / "line.txt").write_text(self.writes(work))
        return Made([made], {"made": f"a line about {work.step}"})

    def forget(self) -> list[str]:
        """What ran since the last time."""
        ran, self.ran = self.ran, []
        return ran


def install(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """Put fakes in the place of all stages; each attempt costs one second, and no two happen at one time."""
    stages = Stages()
    for stage in STAGES:
        monkeypatch.setitem(sys.modules, f"potstill.stages.{stage.name}", SimpleNamespace(run=stages.run))

    times = itertools.count(1)
    for module in (manifest, run_folder):
        monkeypatch.setattr(module, "now", lambda: f"time {next(times)}")

    @contextmanager
    def measure():
        yield SimpleNamespace(cost=Cost(1.0, None, None, "not measured: a test"))

    monkeypatch.setattr(cost, "measure", measure)
    return stages


ALL = [
    str(Step(stage.name, 0 if stage.name in ("distil", "control") else None))
    for stage in STAGES
    if stage.name not in ("tokenizer", "pretrain", "generate", "strategies", "search", "select", "answers", "export")
]
"""The steps of the smallest recipe: its teacher exists and brings its tokenizer, and it learns from text."""
