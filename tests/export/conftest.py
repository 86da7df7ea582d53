"""The facts of runs with made-up figures, as `report/comparison.json` holds them."""

from dataclasses import replace

import pytest

import minimal
from potstill.export.evidence import evidence
from potstill.export.licences import StatedLicence
from potstill.pipeline.run_folder import Run
from potstill.recipe.step import Step
from report.conftest import report

FREE = (
    StatedLicence("teacher smollm2", "model", "apache-2.0", "its card", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    StatedLicence("data gsm8k", "dataset", "MIT", "potstill’s table of public data", "openai/gsm8k"),
)
COST = {"seconds": 1.0, "kwh": None, "kg_co2e": None, "method": "not measured: a test"}


def trained(folder, *overrides, **files):
    """A run whose first student was trained: its recipe, and the run."""
    minimal.inputs(folder)
    recipe, run = minimal.recipe(folder, *overrides), Run(folder / "run")
    step = Step("distil", 0, recipe.first_variant)
    run.begin(step, {}, {})
    student = run.path(step) / "student"
    student.mkdir()
    for name, text in ({"config.json": "{}", "model.safetensors": "weights"} | files).items():
        (student / name).write_text(text)
    run.finish(step, COST, [student], {"made": "1 step"})
    return recipe, run


@pytest.fixture
def facts_of(tmp_path, monkeypatch):
    """The facts of a run with a report's figures; `changes` are fields of the report."""
    monkeypatch.chdir(tmp_path)
    made = []

    def facts(seeds=1, licences=FREE, files=None, **changes):
        if not made:
            made.extend(trained(tmp_path, f"seeds={list(range(seeds))}", **(files or {})))
        recipe, run = made
        return evidence(replace(report(seeds), **changes), recipe, run, licences)

    return facts
