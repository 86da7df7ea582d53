import json
from dataclasses import asdict, replace

import pytest
import torch

from potstill.errors import UserError
from potstill.recipe.teachers import ScoringTeacher
from potstill.servers.connect import Server
from potstill.servers.model import ServedModel, check_unchanged, meet
from servers.faulty_server import MODEL, Scripted
from tiny import llama, tokenizer


def server_of(server: Scripted, **more) -> Server:
    given = {"server": server.url, "model": MODEL, "api": "vllm", "top_k": 16, **more}
    return Server.of("big", ScoringTeacher(**given))


@pytest.fixture(scope="module")
def met(one_server) -> ServedModel:
    return meet(server_of(one_server), tokenizer())


@pytest.fixture
def other_model(server):
    plain, server.model = server.model, llama(1)
    yield
    server.model = plain


@pytest.fixture
def noisy(server, monkeypatch):
    """Each answer of the server lies a little apart from the one before."""
    draw, plain = torch.Generator().manual_seed(0), server.log_probs

    def log_probs(self, ids, temperature=1.0):
        found = plain(ids, temperature)
        return (found + 0.02 * torch.randn(found.shape, generator=draw, dtype=found.dtype)).log_softmax(-1)

    monkeypatch.setattr(Scripted, "log_probs", log_probs)


def test_what_is_known_of_a_model_can_be_written_down(met):
    assert (met.name, met.version, met.longest, met.vocabulary) == (MODEL, "0.32.0", 127, 300)
    assert met.noise == {"largest": 0.0, "mean": 0.0}
    again = ServedModel(**json.loads(json.dumps(asdict(met))))
    assert again.fingerprint == met.fingerprint


def test_the_same_model_is_itself_again(server, met):
    assert met.is_like(meet(server_of(server), tokenizer()))
    check_unchanged(server_of(server), met)


@pytest.mark.usefixtures("other_model")
def test_another_model_under_the_same_name_is_noticed(server, met):
    assert not met.is_like(meet(server_of(server), tokenizer()))
    with pytest.raises(UserError, match=r"the model at http.* has changed: .* nats on average.*begins anew"):
        check_unchanged(server_of(server), met)


@pytest.mark.usefixtures("noisy")
def test_noise_is_measured_and_is_no_change(server):
    met = meet(server_of(server), tokenizer())
    assert 0.01 < met.floor.mean < 0.05 < met.floor.largest
    for _ in range(5):
        check_unchanged(server_of(server), met)
    assert met.is_like(meet(server_of(server), tokenizer()))


@pytest.mark.usefixtures("noisy", "other_model")
def test_another_model_is_noticed_through_the_noise(server, met):
    with pytest.raises(UserError, match="has changed"):
        check_unchanged(server_of(server), replace(met, noise={"largest": 0.2, "mean": 0.02}))


def test_the_limit_of_log_probabilities_is_tried_before_anything_is_captured(server):
    server.most_k = 15
    with pytest.raises(UserError, match="--max-logprobs 16"):
        meet(server_of(server), tokenizer())


def test_a_server_that_ignores_the_temperature_is_refused(server):
    meet(server_of(server, api="sglang"), tokenizer())
    plain = server.sglang
    server.always["/generate"] = lambda _, body: plain(
        body | {"sampling_params": {**body["sampling_params"], "temperature": 1.0}}
    )
    with pytest.raises(UserError, match="does not follow the temperature"):
        meet(server_of(server, api="sglang"), tokenizer())
