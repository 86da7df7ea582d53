import json

import pytest

from potstill.errors import UserError
from potstill.servers.api import Writing
from potstill.servers.client import Client, Connection
from potstill.servers.llama_cpp import LlamaCppApi
from potstill.servers.model_tokens import ModelTokens
from servers.faulty_server import MODEL, VERSION, Reply
from servers.record import FOLDER

HOW = Writing(16, [0])


def api(server) -> LlamaCppApi:
    return LlamaCppApi(Client(Connection("big", server.url), pause=lambda _: None), MODEL, ModelTokens(server.words))


def prompt(server):
    return ModelTokens(server.words).question("why?")


def test_the_ids_and_the_predictions_of_what_it_writes(writer):
    found = api(writer).write(prompt(writer), HOW, 3, 5)
    assert found.fault is None
    assert found.ids == [*writer.words.encode("the old town", add_special_tokens=False), 0]
    assert found.scored.ids.shape == (len(found.ids), 5)
    assert (found.scored.label_log_probs < 0).all()


def test_the_facts_are_the_servers_own(writer):
    writer.always["/v1/models"] = lambda *_: Reply(200, {"data": [{"id": MODEL, "meta": {"n_ctx": 512}}]})
    facts = api(writer).facts()
    assert (facts.model, facts.version, facts.longest) == (MODEL, VERSION, 512)


def test_no_default_of_the_server_applies(writer):
    api(writer).write(prompt(writer), Writing(16, [0], 0.7, 0.9, None), 3, 5)
    body = writer.asked[-1][1]
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"]) == (0.7, 0.9, 0, 3)
    assert (body["min_p"], body["repeat_penalty"], body["cache_prompt"]) == (0.0, 1.0, False)


def changed(**fields):
    def fault(server, body):
        reply = server.llama_cpp(body)
        reply.content |= fields
        return reply

    return fault


WRONG = {
    "a cut prompt": (changed(tokens_evaluated=2), "did not read a prompt of .* tokens as it is"),
    "a moved context": (changed(truncated=True), "did not read a prompt of .* tokens as it is"),
    "a stop word": (changed(stop_type="word"), "did not read a prompt of .* tokens as it is"),
    "no probabilities": (lambda *_: Reply(200, {"content": "a"}), "does not answer as llama.cpp's server"),
    "a list": (lambda *_: Reply(200, []), "does not answer as llama.cpp's server"),
    "probabilities of nothing": (changed(completion_probabilities=[{"id": 5}]), "no log-probabilities of what it"),
}


@pytest.mark.parametrize(("fault", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_one_sentence(writer, fault, says):
    writer.always["/completion"] = fault
    with pytest.raises(UserError, match=says) as refused:
        api(writer).write(prompt(writer), HOW, 3, 5)
    assert "\n" not in str(refused.value)


def test_a_prompt_that_is_too_long_says_which_flag_helps(writer):
    recorded = json.loads((FOLDER / "llama-cpp-write-too-long.json").read_text("utf-8"))
    writer.always["/completion"] = lambda *_: Reply(recorded["status"], recorded["answer"])
    with pytest.raises(UserError, match=r"513 tokens.*--ctx-size"):
        api(writer).write(prompt(writer), HOW, 3, 5)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_another_server_is_found_by_its_tokens(writer, path):
    writer.always[path] = lambda *_: Reply(200, {"other": []})
    with pytest.raises(UserError, match="it is no server of this `api`"):
        api(writer).tokenize("a") if path == "/tokenize" else api(writer).detokenize([5])
