"""One run of conversations for all tests here that judge them."""

import pytest

import toy_chat_runs
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step


@pytest.fixture(scope="session")
def chat_work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A finished run of conversations. Many tests read it: none may write into it."""
    folder = tmp_path_factory.mktemp("chats")
    recipe, run = toy_chat_runs.recipe(folder), Run(folder / "run")
    run_recipe(recipe, run)
    return Work(recipe, run, Step("evaluate"))
