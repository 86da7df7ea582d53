from dataclasses import replace

import pytest

from potstill.errors import UserError
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, responses
from potstill.generation.server_writer import RESPONSES_BETWEEN_PROBES, ServerModel, WritingModel
from potstill.recipe.teachers import ScoringTeacher, WritingTeacher
from potstill.servers.connect import Server, WritingServer
from potstill.servers.model import meet
from potstill.servers.written import OTHER_TOKENS
from servers import writing_server
from servers.faulty_server import MODEL, Reply, Scripted, serving
from tiny import llama, tokenizer

REQUESTS = [Request("a", [5, 60, 7]), Request("b", [3, 4, 9, 8]), Request("c", [200])]


@pytest.fixture
def server():
    with serving(Scripted(llama(0))) as running:
        yield running


def written(server: Scripted, api: str = "vllm", done=(), **how):
    given = ScoringTeacher(server=server.url, model=MODEL, api=api)
    model = ServerModel(Server.of("big", given), llama(0).config)
    decoding = Decoding(max_new_tokens=6, batch_size=2, **how)
    found = responses(NamedModel(model, tokenizer(), "teacher 'big'"), REQUESTS, decoding, done, key="x")
    return {one.key: one for batch in found for one in batch}


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_server_writes_what_its_model_writes_here(server, api):
    decoding = Decoding(max_new_tokens=6, batch_size=2)
    here = responses(NamedModel(llama(0), tokenizer(), "teacher 'big'"), REQUESTS, decoding, key="x")
    assert written(server, api) == {one.key: one for batch in here for one in batch}


def test_what_was_written_is_not_asked_again(server):
    whole = written(server)
    server.asked.clear()
    assert written(server, done=[("a", 0), ("c", 0)]) == {("b", 0): whole["b", 0]}
    assert len(server.asked) == 1


def test_each_response_draws_with_its_own_seed(server):
    written(server, temperature=0.7, samples=2)
    seeds = [body["seed"] for _, body in server.asked]
    assert len(set(seeds)) == 6
    server.asked.clear()
    written(server, temperature=0.7, samples=2, done=[("b", 0)])
    assert {body["seed"] for _, body in server.asked} < set(seeds)


def test_a_failure_keeps_the_answers_before_it(server):
    server.faults["/v1/completions"] = [None, None, lambda *_: Reply(400, {"error": {"message": "no"}})]
    with pytest.raises(UserError, match="no"):
        written(server)


@pytest.fixture(scope="module")
def one_writer():
    words = writing_server.chat_words()
    with serving(writing_server.WritingServer(llama(0), words=words, says=lambda _: "the old town")) as running:
        given = WritingTeacher(server=running.url, model=MODEL, api="llama_cpp", concurrency=1)
        server = WritingServer.of("big", given, words, [0])
        server.client._given_pause = lambda _: None
        yield running, WritingModel(server, llama(0).config, meet(server, words))


def told(one_writer, count=3):
    """Responses, and what was kept of them."""
    _, model = one_writer
    kept = []
    asked = NamedModel(
        replace(model, keep=lambda *each: kept.append(each)), writing_server.chat_words(), "teacher 'big'"
    )
    requests = [Request(str(number), [5, 60, number]) for number in range(count)]
    return responses(asked, requests, Decoding(max_new_tokens=16, batch_size=2), key="x"), kept


def test_what_a_server_told_is_kept_before_its_response_is_given(one_writer):
    found, kept = told(one_writer)
    first = next(found)[0]
    assert (first.response, first.hit_limit, first.fault) == ("the old town", False, None)
    assert first.as_row().keys() == {"id", "sample", "response", "tokens", "hit_limit"}
    assert [prompt for prompt, _ in kept] == [[5, 60, 0]]
    assert len([*found]) == 2
    assert len(kept) == 3


def test_a_response_whose_tokens_are_not_those_of_its_text_has_a_fault(one_writer):
    running, _ = one_writer
    running.says = None
    try:
        found, _ = told(one_writer)
        for (one,) in found:
            assert one.fault == OTHER_TOKENS or one.hit_limit
            assert one.fault is None or one.as_row()["fault"] == OTHER_TOKENS
    finally:
        running.says = lambda _: "the old town"


def test_responses_of_another_model_are_not_given(one_writer):
    running, _ = one_writer
    found, kept = told(one_writer, RESPONSES_BETWEEN_PROBES + 8)
    for _ in range(RESPONSES_BETWEEN_PROBES):
        next(found)
    running.model = llama(1)
    try:
        with pytest.raises(UserError, match="has changed"):
            list(found)
    finally:
        running.model = llama(0)
    assert len(kept) == RESPONSES_BETWEEN_PROBES
