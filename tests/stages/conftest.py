"""Finished toy runs, for tests that only read the outputs of a stage."""

from collections.abc import Callable
from pathlib import Path

import pytest

import toy_questions
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe
from potstill.recipe.load import saved_recipe
from tiny import toy_recipe

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def _run_toy(folder: Path) -> None:
    run_recipe(toy_recipe(folder, "seeds=[0, 1, 2]"), Run(folder / "run"))


@pytest.fixture(scope="session")
def run(made_once: MadeOnce) -> Run:
    """A toy of quickstart with three seeds. Many tests read it: none may write into it."""
    return Run(made_once("toy", _run_toy) / "run")


@pytest.fixture(scope="session")
def recipe(run: Run) -> Recipe:
    return saved_recipe(run.folder)


@pytest.fixture(scope="session")
def questions_run(made_once: MadeOnce) -> Run:
    """Many tests read it: none may write into it."""
    return Run(made_once("questions", toy_questions.evaluated) / "run")


@pytest.fixture(scope="session")
def questions_recipe(questions_run: Run) -> Recipe:
    return saved_recipe(questions_run.folder)
