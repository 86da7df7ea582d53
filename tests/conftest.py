"""Shared by all tests: no network, one thread, no deadline, and folders that are made once."""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
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


LONGEST = (
    "tests/pipeline/test_damaged_runs.py",
    "tests/training/test_trainer_ranks.py",
    "tests/test_distributed.py",
    "tests/pipeline/test_resumed_runs.py",
    "tests/examples/test_slurm.py",
    "tests/docs/test_shell_lines.py",
    "tests/students/test_build.py",
    "tests/rehearsal/test_rehearse.py",
    "tests/stages/test_search.py",
    "tests/test_wheel.py",
)
"""Files of tests, or of fixtures, that take longer than half a minute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first. At the end, one of two workers would be idle until the other has done it."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


frozen_modules = 0
"""How many modules there were when their objects were last kept from the garbage collector."""


def pytest_collection_finish() -> None:
    """Keep the garbage collector off a million objects of imported libraries, which live until the end anyway.

    transformers collects garbage around every training. That would take longer than the toy training itself.
    """
    global frozen_modules
    gc.collect()
    gc.freeze()
    frozen_modules = len(sys.modules)


def pytest_runtest_logfinish() -> None:
    """The same after a test that imported another large library."""
    if len(sys.modules) > frozen_modules + 100:
        pytest_collection_finish()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that returns the folder of a name, and has it filled by whoever asks first, in any worker of xdist.

    Many tests read such a folder: none may write into it.
    """
    root = tmp_path_factory.getbasetemp()
    # Each worker has a folder of its own in the session's.
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        made, whole = root / f"once-{name}", root / f"once-{name}.whole"
        with FileLock(root / f"once-{name}.lock"):
            if not whole.exists():
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                fill(made)
                whole.touch()
        return made

    return folder


@pytest.fixture(scope="module")
def converts_once(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Iterator[None]:
    """Within a module that asks for it, a GGUF teacher is converted only if no test has converted it before."""
    from potstill.models.pretrained import ModelSource
    from potstill.teachers import prepare

    convert = prepare.convert

    def converted_before(source: ModelSource, folder: Path) -> None:
        made = made_once(source.how["gguf_file"], lambda place: convert(source, place / "model"))
        shutil.copytree(made / "model", folder, copy_function=os.link)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "convert", converted_before)
        yield


@pytest.fixture(scope="module")
def short_texts() -> Iterator[None]:
    """Within a module that asks for it, the sample texts of runs are short: a toy writes longer than it learns."""
    from potstill.evaluation import sample_texts
    from potstill.training import snapshot_texts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_texts, "SAMPLE_TOKENS", 5)
        patch.setattr(snapshot_texts, "LENGTH", 5)
        yield


@pytest.fixture(scope="module")
def equal_charts_are_drawn_once() -> Iterator[None]:
    """Within a module that asks for it: many runs with one result have the same charts."""
    import vl_convert

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", cache(vl_convert.vegalite_to_svg))
        yield


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
