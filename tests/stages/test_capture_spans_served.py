"""Spans from servers: those of `potstill serve` are the live teacher's, and vLLM's have a known error."""

import json

import pytest
import torch

from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from servers.faulty_server import MODEL, Scripted, serving
from tiny import VOCABULARY, _config, documents, llama, save_corpus, save_model, toy_recipe


def recipe(folder, teacher, *more):
    # A server reads one token less than its model. So documents are shorter than both.
    save_corpus(folder / "text.jsonl", [" ".join(text.split()[:20]) for text in documents(20)])
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    losses = [{"kind": "alm"}, {"kind": "cross_entropy"}]
    given = {"teachers": {"big": teacher}, "student": student, "tokenizer": {"vocab_size": 400}}
    given |= {"distil.losses": losses, "capture": {"keep": "spans", "batch_size": 4}}
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


def numbers(run):
    store = TargetStore(run.path("capture") / "big", expect=None)
    return store.read([store._index.entry(at)["key"].tobytes() for at in range(len(store))])


def teachers_bits(run):
    """How a teacher of another tokenizer reads the held-out text."""
    rows = read_json(run.path("evaluate") / "comparison.json")["rows"]
    return next(row["value"] for row in rows if (row["model"], row["metric"]) == ("teacher", "bits_per_byte"))


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    run = Run(folder / "run")
    run_recipe(recipe(folder, {"model": str(save_model(llama(0), folder / "big"))}), run, until="evaluate")
    return run


@pytest.fixture
def server():
    with serving(Scripted(llama(0), most_k=VOCABULARY)) as running:
        yield running


def served(folder, server, top_k):
    tokenizer = str(save_model(llama(99, layers=2), folder / "tokenizer"))
    return {"server": server.url, "model": MODEL, "api": "vllm", "tokenizer": tokenizer, "top_k": top_k}


def test_a_server_that_tells_all_tokens_gives_the_live_teachers_spans(tmp_path, server, live):
    run = Run(tmp_path / "run")
    run_recipe(recipe(tmp_path, served(tmp_path, server, VOCABULARY)), run, until="capture")
    found, expected = numbers(run), numbers(live)
    torch.testing.assert_close(found.log_p, expected.log_p, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log_mass, expected.log_mass, rtol=1e-3, atol=1e-3)
    assert run.manifest("capture")["summary"]["big"]["untold"]["largest"] < 1e-5


def test_a_word_mass_is_off_by_no_more_than_what_is_not_told(tmp_path, server, live):
    run = Run(tmp_path / "run")
    run_recipe(recipe(tmp_path, served(tmp_path, server, 8)), run, until="evaluate")
    found, expected = numbers(run), numbers(live)
    torch.testing.assert_close(found.log_p, expected.log_p, rtol=1e-4, atol=1e-4)
    untold = run.manifest("capture")["summary"]["big"]["untold"]
    gap = (found.log_mass.exp() - expected.log_mass.exp()).abs()
    assert 0.01 < gap.max() <= untold["largest"] + 1e-4
    assert gap.mean() <= untold["mean"]
    # The predictions of each block's tokens, and that of its first token.
    assert untold["tokens"] == len(found) + len(TargetStore(run.path("capture") / "big", expect=None))
    assert all(point["alm"] > 0 for point in read_jsonl(run.path("distil/seed-0") / "log.jsonl"))
    assert teachers_bits(run) == pytest.approx(teachers_bits(live), rel=1e-4)
