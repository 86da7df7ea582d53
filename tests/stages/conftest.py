"""One finished toy run of three seeds, for tests that only read the outputs of a stage."""

from pathlib import Path

import pytest

import toy_questions
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe
from tiny import toy_recipe


@pytest.fixture(scope="session")
def recipe(toy_folder: Path) -> Recipe:
    return toy_recipe(toy_folder, "seeds=[0, 1, 2]")


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Many tests read it: none may write into it."""
    made = Run(tmp_path_factory.mktemp("runs") / "toy")
    run_recipe(recipe, made)
    return made


@pytest.fixture(scope="session")
def questions_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy_questions.recipe(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="session")
def questions_run(questions_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Many tests read it: none may write into it."""
    made = Run(tmp_path_factory.mktemp("runs") / "questions")
    run_recipe(questions_recipe, made, until="evaluate")
    return made
