"""A server that only writes: its answers are learned with what it told of them, as if its model were captured here."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_conversations
from potstill.errors import UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.generation.server_writer import RESPONSES_BETWEEN_PROBES
from potstill.metrics.held_out_text import log_probs
from potstill.pipeline import training_data
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
from potstill.servers.client import AHEAD
from potstill.targets import TargetStore
from potstill.targets.content_keys import batch_keys
from potstill.teachers.live import LiveTeacher
from servers.faulty_server import MODEL, Reply, serving
from servers.writing_server import PATHS, WritingServer
from tiny import documents

K = 20


def says(prompt):
    """One of some texts, by the prompt."""
    return documents(8)[len(prompt) % 8][3:40].strip()


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """The folder of toy conversations, and a server with their teacher."""
    folder = tmp_path_factory.mktemp("talks")
    toy_conversations.recipe(folder)
    words = AutoTokenizer.from_pretrained(folder / "teacher")
    model = AutoModelForCausalLM.from_pretrained(folder / "teacher").eval()
    with serving(WritingServer(model, words=words, says=says, longest=256)) as running:
        yield folder, running


def chats(talks, api, *more, **of_teacher):
    folder, server = talks
    place = str(folder / "teacher")
    given = {"server": server.url, "model": MODEL, "api": api, "tokenizer": place, "top_k": K} | of_teacher
    overrides = {
        "teachers": {"t": given},
        "student": {"start": "checkpoint", "model": place},
        "generate": {"by": "t", "max_new_tokens": 48},
        "capture": {"k": K, "bits": 32},
        "corpus.template": "chatml",
        "corpus.validation": None,
        "corpus.train": 32,
    }
    return toy_conversations.recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in overrides.items()), *more)


@pytest.fixture(scope="module", params=PATHS)
def captured(request, talks, tmp_path_factory):
    run, recipe = Run(tmp_path_factory.mktemp(request.param) / "run"), chats(talks, request.param)
    run_recipe(recipe, run, until="capture")
    return request.param, recipe, run


def learned(recipe, run):
    """All samples as one batch, and their captured targets."""
    samples = training_data.for_sample_set(Work(recipe, run, Step("capture")), None)
    batch = samples.collate(list(samples.train))
    return batch, TargetStore(run.path("capture") / "t", expect=None).read(batch_keys(batch))


def test_what_a_server_told_is_what_its_model_predicts_here(captured, talks):
    api, recipe, run = captured
    batch, stored = learned(recipe, run)
    model = LiveTeacher(talks[1].model)
    live = log_probs(model.target(batch))
    told = stored.log_probs > -torch.inf
    assert (live.gather(1, stored.ids.long()) - stored.log_probs)[told].abs().max() < 1e-4
    mass = stored.log_probs.exp().sum(-1) + stored.log_tail.exp()
    assert (mass - 1).abs().max() < 1e-5
    summary = run.manifest("capture")["summary"]["t"]
    assert summary["tokens"] > summary["told"] == int(told.any(-1).sum()) > 0
    if api == "llama_cpp":
        first = told.any(-1)
        assert (stored.ids[first].sort(-1).values == live[first].topk(K).indices.sort(-1).values).float().mean() > 0.99


def test_nothing_is_known_of_tokens_that_the_server_did_not_write(captured):
    _, recipe, run = captured
    _, stored = learned(recipe, run)
    unknown = ~(stored.log_probs > -torch.inf).any(-1)
    assert unknown.any(), "only the last turn is the server's"
    assert (stored.log_tail[unknown] == 0).all()


def test_what_was_written_is_counted_and_nothing_is_asked_for_the_capture(captured, talks):
    _, _, run = captured
    traffic = run.manifest("generate")["summary"]["traffic"]
    assert traffic["tokens_read"] > traffic["requests"] > len(read_jsonl(run.path("generate") / "responses.jsonl")) > 0
    assert "traffic" not in run.manifest("capture")["summary"]["t"]
    assert run.manifest("generate")["summary"]["hit_limit"] < traffic["requests"]
    assert not [row for row in read_jsonl(run.path("generate") / "responses.jsonl") if "fault" in row]


@pytest.mark.parametrize("captured", ["llama_cpp"], indirect=True)
def test_a_stopped_writer_goes_on_to_the_same_targets(captured, talks, tmp_path):
    api, recipe, whole = captured
    run, server = Run(tmp_path / "run"), talks[1]
    run_recipe(recipe, run, until="corpus")
    one_by_one = chats(talks, api, concurrency=1)
    # One probe, the answers before the next one and those that are asked ahead, and this probe.
    left = [1 + RESPONSES_BETWEEN_PROBES + AHEAD + 1]

    def gone(*_):
        left[0] -= 1
        return Reply(400, {"error": {"message": "engine is gone"}}) if left[0] < 0 else None

    server.always[PATHS[api]] = gone
    with pytest.raises(UserError, match="engine is gone"):
        run_recipe(one_by_one, run, until="capture")
    server.always.clear()
    assert len(read_jsonl(run.path("generate") / "responses.jsonl")) > 0
    run_recipe(recipe, run, until="capture")
    for name in ("00000.records", "00000.index"):
        ours, theirs = (one.path("capture") / "t" / name for one in (run, whole))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("captured", ["openai"], indirect=True)
def test_students_learn_it_and_the_report_says_what_it_is(captured):
    _, recipe, run = captured
    run_recipe(recipe, run)
    models = {row["model"] for row in json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]}
    assert models == {"start", "student", "control", "teacher"}
    page = (run.path("report") / "index.html").read_text("utf-8")
    assert "tells only the distributions of what it wrote" in page
