"""A run whose teacher `potstill serve` gives is the run with the teacher beside it: the same bytes and losses."""

import json

import pytest
import torch

from potstill.cli.compare import comparison
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from potstill.teachers.serving.server import application
from tiny import _config, llama, save_model, toy_recipe
from toy_server import served, serving

FEW = "distil.training.max_steps=2"
SERVED = "teachers.smollm2={server: %s, api: potstill}"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(application(served(llama(0), tmp_path_factory.mktemp("served")), None)) as found:
        yield found


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = save_model(llama(7), tmp_path_factory.mktemp("models") / "student")
    return f"student={{start: checkpoint, model: {folder}}}"


@pytest.fixture(scope="module")
def both(url, student, toy_folder, tmp_path_factory):
    """Runs a recipe twice, up to a stage: with the teacher here, and with the teacher behind the server."""

    def run_both(until, *settings):
        runs = []
        for more in ([], [SERVED % url]):
            runs.append(Run(tmp_path_factory.mktemp("runs") / "run"))
            run_recipe(toy_recipe(toy_folder, student, *settings, *more), runs[-1], until)
        return runs

    return run_both


def test_a_capture_has_the_same_records(both):
    here, there = (run.path("capture") / "smollm2" for run in both("capture", "capture.keep=hidden"))
    records = [file.name for file in here.iterdir() if file.suffix in (".records", ".index", ".safetensors")]
    assert records
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in records)


def test_captured_spans_are_the_same_numbers(both):
    scratch = {"start": "scratch", "config": _config(llama(layers=2))}
    given = {"student": scratch, "tokenizer": {"vocab_size": 400}, "distil.losses": [{"kind": "alm"}]}
    settings = ["capture={keep: spans}", *(f"{key}={json.dumps(value)}" for key, value in given.items())]
    stores = [TargetStore(run.path("capture") / "smollm2", expect=None) for run in both("capture", *settings)]
    keys = [stores[0]._index.entry(at)["key"].tobytes() for at in range(len(stores[0]))]
    here, there = (store.read(keys) for store in stores)
    # A code, where the sums of the two round to different sides.
    torch.testing.assert_close(there.log_p, here.log_p, rtol=2**-14, atol=1e-6)
    torch.testing.assert_close(there.log_mass, here.log_mass, rtol=2**-14, atol=1e-6)
    assert torch.equal(there.step, here.step)


def test_a_training_beside_it_has_the_same_losses(both):
    here, there = both("distil", "capture=null", FEW)
    weights = "distil/seed-0/student/model.safetensors"
    assert (here.folder / weights).read_bytes() == (there.folder / weights).read_bytes()


@pytest.mark.slow
def test_the_whole_run_ends_with_a_report(url, student, toy_folder, tmp_path):
    run = Run(tmp_path / "run")
    recipe = toy_recipe(toy_folder, student, FEW, SERVED % url)
    run_recipe(recipe, run)
    teacher = {row["metric"]: row["value"] for row in comparison([run.folder]) if row["model"].startswith("teacher")}
    assert 0 < teacher["loss"] < 20
    assert run.manifest("teachers")["summary"]["smollm2"]["parameters"] is None
    asked = run.manifest("capture")["summary"]["smollm2"]["traffic"]
    assert asked["tokens_read"] > asked["requests"] > 0
    page = (run.path("report") / "index.html").read_text(encoding="utf-8")
    assert "ran behind `potstill serve`" in page
    assert f"{asked['requests']:,} requests" in page
