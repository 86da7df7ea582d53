"""Shared by all tests: no network, one thread, no deadline, and a folder for the inputs of toy runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes every example slow, which is no failure.
settings.register_profile("no deadline", deadline=None)
# `make fuzz`
settings.register_profile("fuzz", deadline=None, max_examples=3000)
settings.load_profile("no deadline")
# Before torch is imported: a test must not depend on what the hub answers, nor on how many cores there are.
os.environ.setdefault("POTSTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
os.environ.update(
    HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false"
)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny teachers and the tiny text of toy recipes lie."""
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(autouse=True)
def every_run_has_a_forecast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's run goes on without a forecast. A test's does not, because something is wrong with planning."""

    def fail(error: Exception) -> None:
        raise error

    if "goes_on_without_a_forecast" not in request.node.name:
        monkeypatch.setattr("potstill.pipeline.runner.without_forecast", fail)
