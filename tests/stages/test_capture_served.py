import json

import pytest

from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from servers.faulty_server import MODEL, Reply, Scripted, serving
from tiny import documents, llama, save_corpus, save_model, toy_recipe

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_model(llama(99, layers=2), tmp_path_factory.mktemp("student"))


@pytest.fixture
def server():
    with serving(Scripted(llama(0))) as running:
        yield running


def recipe(folder, server, student, *more, **of_teacher):
    served = {"server": server.url, "model": MODEL, "api": "vllm", "tokenizer": str(student), "top_k": 8, **of_teacher}
    save_corpus(folder / "text.jsonl", documents(20))
    given = {
        "teachers": {"big": served},
        "student": {"start": "checkpoint", "model": str(student)},
        "capture.k": 8,
        "capture.batch_size": 4,
    }
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


def records(run: Run) -> dict[str, bytes]:
    folder = run.path("capture") / "big"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".lock"}


def test_a_capture_from_a_server_is_the_live_teachers(tmp_path, server, student):
    served, live = Run(tmp_path / "served"), Run(tmp_path / "live")
    given = recipe(tmp_path, server, student, price={"per_million_read": 2.0})
    run_recipe(given, served, until="capture")
    place = save_model(llama(0), tmp_path / "big")
    here = given.model_copy(update={"teachers": toy_recipe(tmp_path, f"teachers.smollm2.model={place}").teachers})
    run_recipe(here, live, until="capture")
    one = TargetStore(served.path("capture") / "big", expect=None)
    other = TargetStore(live.path("capture") / "smollm2", expect=None)
    keys = [one._index.entry(at)["key"].tobytes() for at in range(len(one))]
    first, second = one.read(keys), other.read(keys)
    assert (first.ids == second.ids).all()
    # A step of an 8-bit log-probability, where the two round to different sides.
    assert (first.log_probs - second.log_probs).abs().max() < 0.1
    assert (first.log_tail.exp() - second.log_tail.exp()).abs().max() < 1e-6
    traffic = served.manifest("capture")["summary"]["big"]["traffic"]
    assert traffic["tokens_read"] > traffic["requests"] > 0
    noise = served.manifest("teachers")["summary"]["big"]["served"]["noise"]
    assert noise == {"largest": 0.0, "mean": 0.0}


def test_a_capture_that_fails_goes_on_at_another_address_to_the_same_bytes(tmp_path, server, student):
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe(tmp_path, server, student), whole, until="capture")
    given = recipe(tmp_path, server, student, concurrency=2)
    run_recipe(given, cut, until="corpus")
    asked = len(server.asked)

    def refuse_later(running, body):
        return Reply(400, {"error": {"message": "engine is gone"}}) if len(running.asked) > asked + 35 else None

    server.always[COMPLETIONS] = refuse_later
    with pytest.raises(UserError, match="engine is gone"):
        run_recipe(given, cut, until="capture")
    kept = sum(len(content) for name, content in records(cut).items() if name.endswith("index"))
    assert kept > 0, "what was answered is kept"
    with serving(Scripted(llama(0))) as elsewhere:
        run_recipe(recipe(tmp_path, elsewhere, student, concurrency=3), cut, until="capture")
        repeated = len([path for path, _ in elsewhere.asked if path == COMPLETIONS])
    assert records(cut) == records(whole)
    assert repeated < len([path for path, _ in server.asked if path == COMPLETIONS])
    assert "2" not in json.dumps(cut.manifest("teachers").get("attempts", 1)), "the teacher was not prepared again"


def test_a_run_that_goes_on_notices_another_model(tmp_path, server, student):
    run = Run(tmp_path / "run")
    given = recipe(tmp_path, server, student)
    run_recipe(given, run, until="corpus")
    server.model = llama(1)
    with pytest.raises(UserError, match="has changed"):
        run_recipe(given, run, until="capture")


def test_a_run_keeps_no_key(tmp_path, server, student, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "a-very-secret-key")
    server.key = "a-very-secret-key"
    run = Run(tmp_path / "run")
    run_recipe(recipe(tmp_path, server, student, key="BIG_KEY"), run, until="capture")
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if b"a-very-secret-key" in file.read_bytes()]
