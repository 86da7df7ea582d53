import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.errors import UserError
from potstill.servers.api import Writing
from potstill.servers.client import Client, Connection
from potstill.servers.vllm import VllmApi
from servers.faulty_server import MODEL, Reply, Scripted
from tiny import llama

ROW = [5, 60, 7, 200, 9, 20]
COMPLETIONS = "/v1/completions"


def api(server: Scripted, model: str = MODEL) -> VllmApi:
    return VllmApi(Client(Connection("big", server.url), pause=lambda _: None), model)


def expected(row: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return llama(0)(torch.tensor([row])).logits[0, :-1].double().log_softmax(-1)


def test_the_facts_are_the_servers_own(server):
    facts = api(server).facts()
    # A request asks for one new token, which takes a place.
    assert (facts.model, facts.version, facts.longest, facts.most_k) == (MODEL, "0.32.0", 127, None)


def test_a_row_is_scored_with_its_own_token_kept_apart(server):
    found, wanted = api(server).score(ROW, 4, 1.0), expected(ROW)
    assert found.ids.shape == (5, 4)
    np.testing.assert_allclose(np.sort(found.log_probs, -1), wanted.topk(4).values.flip(-1).numpy(), atol=1e-9)
    np.testing.assert_allclose(found.label_log_probs, wanted[range(5), ROW[1:]].numpy(), atol=1e-9)
    assert {*found.ids[0].tolist()} == {*wanted.topk(4).indices[0].tolist()}


def test_a_greater_k_gives_the_whole_distribution(server):
    server.most_k = 300
    found = api(server).score(ROW, 300, 1.0)
    np.testing.assert_allclose(np.exp(found.log_probs).sum(-1), 1, atol=1e-9)


def changed(change):
    """A fault that changes the log-probabilities of a right reply."""

    def fault(server, body):
        reply = server.vllm(body)
        if reply.status == 200 and reply.content["choices"][0]["prompt_logprobs"]:
            reply.content["choices"][0]["prompt_logprobs"] = change(reply.content["choices"][0]["prompt_logprobs"])
        return reply

    return fault


def with_number(number):
    def change(entries):
        next(iter(entries[2].values()))["logprob"] = number
        return entries

    return changed(change)


WRONG = {
    "no prompt log-probabilities": (changed(lambda _: None), "gives no log-probabilities of a prompt; vLLM and SGLang"),
    "too few positions": (changed(lambda rows: rows[:-1]), "5 belong|predictions for a row of 6"),
    "too many positions": (changed(lambda rows: [*rows, rows[-1]]), "6 predictions"),
    "k too small": (
        changed(lambda rows: [None, *(dict([*one.items()][:3]) for one in rows[1:])]),
        "only 3|NaN or null",
    ),
    "first position not null": (changed(lambda rows: rows[1:]), "gives no log-probabilities of a prompt"),
    "NaN": (with_number(math.nan), "NaN or null"),
    "null": (with_number(None), "NaN or null"),
    "text": (with_number("low"), "NaN or null"),
    "above 0": (with_number(0.5), "NaN or null"),
    "no distribution": (changed(lambda rows: _with_likeliest(rows)), "sum to"),
    "another form": (changed(lambda rows: [None, *([1, 2] for _ in rows[1:])]), "another form"),
    "no choices": (lambda *_: Reply(200, {"choices": []}), "does not answer as vLLM"),
    "a list": (lambda *_: Reply(200, [1]), "does not answer as vLLM"),
}


def _with_likeliest(rows):
    for entry in rows[1:]:
        for value in entry.values():
            value["logprob"] = -0.1
    return rows


@pytest.mark.parametrize(("fault", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_one_sentence(server, fault, says):
    server.always[COMPLETIONS] = fault
    with pytest.raises(UserError, match=says) as refused:
        api(server).score(ROW, 4, 1.0)
    assert "\n" not in str(refused.value)
    assert len(server.asked) == 1, "the same answer would come again"


def test_a_log_probability_of_minus_infinity_is_no_mass(server):
    server.always[COMPLETIONS] = with_number(-9999.0)
    assert (api(server).score(ROW, 4, 1.0).log_probs[1] == -np.inf).sum() + (
        api(server).score(ROW, 4, 1.0).label_log_probs[1] == -np.inf
    ) >= 1


def test_more_log_probabilities_than_the_server_gives_are_refused_with_its_flag(server):
    server.most_k = 20
    with pytest.raises(UserError, match=r"top_k` is 64.*lower it to 20.*--max-logprobs 64"):
        api(server).score(ROW, 64, 1.0)


def test_a_longer_row_than_the_server_reads_is_refused_with_its_flag(server):
    with pytest.raises(UserError, match=r"a sample of 200 tokens.*--max-model-len"):
        api(server).score([5] * 200, 4, 1.0)


def test_another_model_is_refused_and_those_that_there_are_are_named(server):
    with pytest.raises(UserError, match=r"teachers.big.model`: .* has no model 'other'; it serves tiny"):
        api(server, "other").facts()
    with pytest.raises(UserError, match="has no model 'other' any more"):
        api(server, "other").score(ROW, 4, 1.0)


@pytest.mark.parametrize("listed", [{}, [], {"data": [{}]}, {"data": None}])
def test_a_server_of_another_kind_is_refused(server, listed):
    server.always["/v1/models"] = lambda *_: Reply(200, listed)
    with pytest.raises(UserError, match="no server of this `api`"):
        api(server).facts()


def test_a_version_may_be_unknown(server):
    server.always["/version"] = lambda *_: Reply(404, {})
    assert api(server).facts().version is None


def test_texts_and_tokens(server):
    ids = api(server).tokenize("the river bank")
    assert ids == server.words.encode("the river bank")
    assert api(server).detokenize(ids) == "the river bank"
    server.always["/tokenize"] = lambda *_: Reply(404, {"detail": "Not Found"})
    with pytest.raises(UserError, match="has no route /tokenize"):
        api(server).tokenize("a")


def test_a_text_is_written_to_its_end_or_limit(server):
    found = api(server).write(ROW, Writing(6, ends=[0]), seed=1)
    assert found == server.written(ROW, 6, [0])
    end = found[2]
    assert api(server).write(ROW, Writing(6, ends=[end]), seed=1) == found[: found.index(end) + 1]
    body = server.asked[-1][1]
    assert body["repetition_penalty"] == 1.0, "the defaults of the model's folder must not apply"
    assert (body["temperature"], body["seed"], body["ignore_eos"]) == (0.0, 1, True)


def test_a_server_that_gives_no_ids_is_refused(server):
    server.always[COMPLETIONS] = lambda *_: Reply(200, {"choices": [{"text": "a"}]})
    with pytest.raises(UserError, match="gives no ids of written tokens"):
        api(server).write(ROW, Writing(6, ends=[0]), seed=1)


RECORDED = Path(__file__).with_name("recorded")


def recorded(server, name):
    """vLLM's api, and what a real vLLM was asked and answered, which the server repeats."""
    found = json.loads((RECORDED / f"vllm-{name}.json").read_text(encoding="utf-8"))
    server.always[found["asked"]["path"]] = lambda *_: Reply(found["status"], found["answer"])
    return api(server, "smollm2"), found["asked"]["body"], found["answer"]


@pytest.mark.parametrize("number", range(3))
def test_a_real_answer_is_read(server, number):
    asked, body, answer = recorded(server, f"score-{number}")
    row, entries = body["prompt"], answer["choices"][0]["prompt_logprobs"][1:]
    found = asked.score(row, 8, 1.0)
    for at, entry in enumerate(entries):
        likeliest = {int(token) for token, one in entry.items() if one["rank"] <= 8}
        assert {*found.ids[at].tolist()} == likeliest
        assert found.label_log_probs[at] == entry[str(row[at + 1])]["logprob"]
        assert {*found.log_probs[at].tolist()} == {entry[str(token)]["logprob"] for token in likeliest}


def test_a_request_is_one_that_a_real_server_has_understood(server):
    asked, body, _ = recorded(server, "score-0")
    asked.score(body["prompt"], 8, 1.0)
    assert server.asked[-1][1].items() <= body.items()


REFUSED = {
    "score-too-many": r"top_k` is 65, .* lower it to 64, or start vLLM with `--max-logprobs 65`",
    "score-too-long": r"a sample of 513 tokens is longer than the server reads .*--max-model-len",
    "score-unknown-token": r"teachers.big.server`: .*400",
    "wrong-model": r"`teachers.big.model`: .* has no model 'smollm2' any more",
    "wrong-key": r"`teachers.big.key` is missing: .* asks for a key \(401\)",
}


@pytest.mark.parametrize(("name", "says"), REFUSED.items(), ids=REFUSED)
def test_a_real_refusal_is_one_sentence(server, name, says):
    asked, body, _ = recorded(server, name)
    with pytest.raises(UserError, match=says) as refused:
        asked.score(body["prompt"], body["prompt_logprobs"], 1.0)
    assert "\n" not in str(refused.value)
    assert len(server.asked) == 1, "the same answer would come again"


def test_the_facts_of_a_real_server_are_read(server):
    recorded(server, "version")
    asked, _, answer = recorded(server, "models")
    facts = asked.facts()
    assert (facts.model, facts.version) == ("smollm2", "0.32.0")
    assert facts.longest == answer["data"][0]["max_model_len"] - 1


@pytest.mark.parametrize("name", ["tokenize", "tokenize-special"])
def test_real_tokens_are_read(server, name):
    asked, body, answer = recorded(server, name)
    assert asked.tokenize(body["prompt"]) == answer["tokens"]


def test_a_real_text_is_read(server):
    asked, body, answer = recorded(server, "detokenize")
    assert asked.detokenize(body["tokens"]) == answer["prompt"] == "The capital of France is Paris."


@pytest.mark.parametrize(("name", "ends"), [("write", [0]), ("write-until", [198])])
def test_a_real_response_is_read_to_its_end(server, name, ends):
    asked, body, answer = recorded(server, name)
    found = asked.write(body["prompt"], Writing(8, ends), seed=0)
    ids = answer["choices"][0]["token_ids"]
    assert found[: len(ids)] == ids
    assert (found[-1] in ends) == (name == "write-until")
