"""The facts of runs with made-up figures, as `report/comparison.json` holds them."""

from dataclasses import replace

import pytest

import minimal
from potstill.export.evidence import evidence
from potstill.export.licences import StatedLicence
from potstill.export.model_card import write_cards
from potstill.files.atomic import digest, write_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runs import COMPARISON
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


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """A run with a report: its first student, its card, and what `exports` says of exported files."""
    monkeypatch.chdir(tmp_path)

    def make(licences=FREE, exports=(), files=None):
        recipe, run = trained(tmp_path, **(files or {}))
        facts = evidence(report(1), recipe, run, licences) | {"exports": list(exports)}
        step = facts["students"][0]["step"]
        run.begin(Step("report"), {"steps": {step: digest(run.manifest(step))}}, {})
        write_json(run.path("report") / COMPARISON, facts)
        write_cards(run.path("export"), facts, b"a picture")
        write_json(run.folder / "recipe.json", recipe.model_dump(mode="json", by_alias=True))
        run.finish(Step("report"), COST, [run.path("report") / COMPARISON], {})
        return run

    return make
