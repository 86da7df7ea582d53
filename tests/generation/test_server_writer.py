import pytest

from potstill.errors import UserError
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, responses
from potstill.generation.server_writer import ServerModel
from potstill.recipe.teachers import ScoringTeacher
from potstill.servers.connect import Server
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
