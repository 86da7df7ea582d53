"""Fixtures: stages that only write a line, and the smallest recipe run with them."""

import pytest

import fake_stages
import minimal
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe


@pytest.fixture
def stages(monkeypatch):
    return fake_stages.install(monkeypatch)


@pytest.fixture
def do(tmp_path, monkeypatch, stages):
    """Run the smallest recipe with overrides, and return what ran."""
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*overrides, **how):
        run_recipe(minimal.recipe(tmp_path, *overrides), Run("run"), **how)
        return stages.forget()

    return run
