import pytest

from potstill.errors import UserError
from potstill.servers.api import Writing
from potstill.servers.client import Client, Connection
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.ollama import OllamaApi
from servers.faulty_server import MODEL, VERSION, Reply

HOW = Writing(16, [0])


def api(server, model=MODEL) -> OllamaApi:
    return OllamaApi(Client(Connection("big", server.url), pause=lambda _: None), model, ModelTokens(server.words))


def prompt(server):
    return ModelTokens(server.words).question("why?")


@pytest.mark.parametrize("tells_end", [True, False])
def test_the_tokens_and_the_predictions_of_what_it_writes(writer, tells_end):
    writer.tells_end = tells_end
    found = api(writer).write(prompt(writer), HOW, 3, 5)
    assert found.fault is None
    assert found.ids == [*writer.words.encode("the old town", add_special_tokens=False), 0]
    assert len(found.scored.ids) == len(found.ids)
    body = writer.asked[-1][1]
    assert body["raw"]
    assert body["prompt"] == writer.words.decode(prompt(writer).ids)


def test_the_facts_are_the_servers_own(writer):
    assert api(writer).facts().version == VERSION
    with pytest.raises(UserError, match=r"no model 'other'.*ollama list"):
        api(writer, "other").facts()


def changed(**fields):
    def fault(server, body):
        reply = server.ollama(body)
        reply.content |= fields
        return reply

    return fault


WRONG = {
    "another tokenizer, or a cut prompt": (changed(prompt_eval_count=3), r"teachers.big.tokenizer.*read 3 tokens"),
    "no count": (lambda *_: Reply(200, {"response": "a"}), "does not answer as Ollama"),
    "a list": (lambda *_: Reply(200, []), "does not answer as Ollama"),
    "tokens without others": (changed(logprobs=[{"token": "a", "logprob": -1.0}]), "gives no `top_logprobs`"),
    "an old Ollama": (changed(logprobs=None), "gives no log-probabilities"),
}


@pytest.mark.parametrize(("fault", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_one_sentence(writer, fault, says):
    writer.always["/api/generate"] = fault
    with pytest.raises(UserError, match=says) as refused:
        api(writer).write(prompt(writer), HOW, 3, 5)
    assert "\n" not in str(refused.value)
