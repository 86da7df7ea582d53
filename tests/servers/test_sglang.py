import numpy as np
import pytest
import torch

from potstill.errors import UserError
from potstill.servers.api import Writing
from potstill.servers.client import Client, Connection
from potstill.servers.sglang import SglangApi
from servers.faulty_server import MODEL, Reply, Scripted
from tiny import llama

ROW = [5, 60, 7, 200, 9, 20]


def api(server: Scripted) -> SglangApi:
    return SglangApi(Client(Connection("big", server.url), pause=lambda _: None), MODEL)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_a_row_is_scored_at_the_temperature_of_the_request(server, temperature):
    found = api(server).score(ROW, 4, temperature)
    with torch.no_grad():
        wanted = (llama(0)(torch.tensor([ROW])).logits[0, :-1].double() / temperature).log_softmax(-1)
    np.testing.assert_allclose(np.sort(found.log_probs, -1), wanted.topk(4).values.flip(-1).numpy(), atol=1e-9)
    np.testing.assert_allclose(found.label_log_probs, wanted[range(5), ROW[1:]].numpy(), atol=1e-9)


def test_the_facts_are_the_servers_own(server):
    server.always["/get_server_info"] = lambda *_: Reply(404, {})
    server.always["/server_info"] = lambda *_: Reply(200, {"version": "0.5.23"})
    facts = api(server).facts()
    assert (facts.model, facts.version, facts.longest) == (MODEL, "0.5.23", 127)


def changed(change):
    def fault(server, body):
        reply = server.sglang(body)
        change(reply.content["meta_info"])
        return reply

    return fault


WRONG = {
    "no log-probabilities": (changed(lambda meta: meta.pop("input_top_logprobs")), "no log-probabilities of a prompt"),
    "none of them": (changed(lambda meta: meta.update(input_top_logprobs=None)), "no log-probabilities of a prompt"),
    "fewer": (changed(lambda meta: meta["input_top_logprobs"].pop()), "4 predictions for a row of 6"),
    "k too small": (changed(lambda meta: meta["input_top_logprobs"][2].pop()), "only 3 log-probabilities"),
    "other tokens": (changed(lambda meta: meta["input_token_logprobs"][2].__setitem__(1, 1)), "about other tokens"),
    "no meta": (lambda *_: Reply(200, {"text": "a"}), "does not answer as SGLang"),
    "a list": (lambda *_: Reply(200, []), "does not answer as SGLang"),
}


@pytest.mark.parametrize(("fault", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_one_sentence(server, fault, says):
    server.always["/generate"] = fault
    with pytest.raises(UserError, match=says):
        api(server).score(ROW, 4, 1.0)


def test_a_text_is_written(server):
    assert api(server).write(ROW, Writing(6, ends=[0]), seed=1) == server.written(ROW, 6, [0])
    server.always["/generate"] = lambda *_: Reply(200, {"meta_info": {}})
    with pytest.raises(UserError, match="gives no ids"):
        api(server).write(ROW, Writing(6, ends=[0]), seed=1)
