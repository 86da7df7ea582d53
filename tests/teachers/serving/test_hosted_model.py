"""The model that is served: it gives what the live teacher gives, for any rows."""

import numpy as np
import pytest
import torch

from families import of
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.models.head_bytes import head_of_bytes
from potstill.servers.hidden_states_format import HiddenRequest
from potstill.teachers.live import LiveTeacher
from potstill.teachers.serving.hosted_model import HostedModel
from tiny import VOCABULARY, gpt2, llama, padded, tokenizer
from toy_server import prepared, served
from toy_training import samples

MODELS = {
    "llama": llama,
    "gpt2": gpt2,
    "phi, with a bias": of("PhiConfig"),
    "gemma2, with a soft cap": of("Gemma2Config", head_dim=8, final_logit_softcapping=0.5),
    "granite, with a scale": of("GraniteConfig", logits_scaling=8.0),
}


def request(rows):
    supervised = [np.array(row["labels"]) != IGNORE_INDEX for row in rows]
    for mask in supervised:
        mask[0] = False
    return HiddenRequest.of_rows([np.array(row["input_ids"], np.int32) for row in rows], supervised)


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_the_live_teachers_hidden_states_and_head_bit_for_bit(name, tmp_path):
    model, rows = MODELS[name](), samples(6)
    live = LiveTeacher(model).target(Collator(0)(rows))
    found = served(model, tmp_path)
    (hidden,) = found.read([request(rows)])
    assert torch.equal(hidden, live.hidden)
    head = head_of_bytes(found.head, vars(found.facts.teacher.head), torch.device("cpu"))
    for one, other in zip((head.weight, head.bias), (live.head.weight, live.head.bias), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert (head.scale, head.softcap) == (live.head.scale, live.head.softcap)


def test_requests_that_are_read_together_get_their_own_rows(tmp_path):
    found = served(llama(0), tmp_path)
    requests = [request(samples(count, seed=seed)) for seed, count in enumerate((3, 1, 2))]
    together = found.read(requests)
    for one, hidden in zip(requests, together, strict=True):
        torch.testing.assert_close(hidden, found.read([one])[0], rtol=0, atol=1e-5)


def test_its_facts_are_those_of_the_teacher(tmp_path):
    teacher = prepared(padded(llama(0), 320), tmp_path)
    host = HostedModel.load(teacher, 64).facts
    facts = host.teacher
    assert (facts.model, facts.fingerprint, facts.dtype) == ("big", teacher.fingerprint, "float32")
    assert (facts.vocabulary, facts.hidden_size, facts.longest) == (320, 32, 128)
    assert facts.tokenizer == tokenizer_fingerprint(tokenizer())
    assert host.most_tokens == 128, "one row of the greatest length is always read"
    assert facts.vocabulary > VOCABULARY


def test_its_tokenizer_is_sent_as_files(tmp_path):
    files = served(llama(0), tmp_path).tokenizer
    assert {"tokenizer.json", "tokenizer_config.json"} <= files.keys()


def test_a_model_whose_head_cannot_be_taken_apart_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("potstill.teachers.live.head_of", lambda model: None)
    with pytest.raises(UserError, match="big cannot be served, because its head cannot be taken apart"):
        served(llama(0), tmp_path)
