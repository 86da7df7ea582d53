"""The client of `potstill serve`: what it gives, and the sentence for what it does not believe."""

import dataclasses
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from potstill.errors import UserError
from potstill.servers.client import Client, Connection
from potstill.servers.hidden_states_format import HiddenRequest, answer_bytes
from potstill.servers.potstill import PotstillApi, head_of
from potstill.teachers.serving.server import application
from tiny import llama
from toy_server import served, serving

REQUEST = HiddenRequest.of_rows([np.arange(2, 6, dtype=np.int32)], [np.arange(4) > 0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served(llama(0), tmp_path_factory.mktemp("served"), batch_tokens=256)


@pytest.fixture(scope="module")
def url(model):
    with serving(application(model, "a-key")) as found:
        yield found


def api(url, key="A_KEY"):
    return PotstillApi(Client(Connection("big", url, key), pause=lambda _: None))


@pytest.fixture
def answering():
    """A server that gives to each path the answer that it is told."""
    told = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = told[self.path.partition("?")[0]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield told, f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_it_gives_what_the_server_has(url, model, monkeypatch):
    monkeypatch.setenv("A_KEY", "a-key")
    server = api(url)
    facts = server.facts()
    assert facts == model.facts
    assert server.check_unchanged(dataclasses.replace(facts.teacher, model="under another name")) == facts
    assert server.head(facts.teacher) == model.head
    assert head_of(model.head, facts.teacher, torch.device("cpu")).weight.shape == (300, 32)
    assert server.tokenizer() == model.tokenizer
    assert torch.equal(server.hidden(REQUEST, facts.teacher), model.read([REQUEST])[0])
    assert server.client.traffic.tokens_read == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "other"}, "another teacher now"),
        ({"dtype": "bfloat16"}, "in another number format"),
        ({"vocabulary": 301}, "another teacher now"),
    ],
)
def test_another_teacher_is_noticed(url, model, monkeypatch, change, sentence):
    monkeypatch.setenv("A_KEY", "a-key")
    with pytest.raises(UserError, match=f"`teachers.big.server`: .*{sentence}"):
        api(url).check_unchanged(dataclasses.replace(model.facts.teacher, **change))


def test_another_teacher_is_noticed_by_each_request(url, model, monkeypatch):
    monkeypatch.setenv("A_KEY", "a-key")
    with pytest.raises(UserError, match="answers 409: this server's teacher is big"):
        api(url).hidden(REQUEST, dataclasses.replace(model.facts.teacher, fingerprint="other"))


def test_a_wrong_key_and_a_missing_one_are_told(url, monkeypatch):
    monkeypatch.setenv("A_KEY", "wrong")
    with pytest.raises(UserError, match="refuses the key in A_KEY"):
        api(url).facts()
    with pytest.raises(UserError, match=r"`teachers.big.key` is missing"):
        api(url, None).facts()


@pytest.mark.parametrize("facts", [b"{}", b"<html>", b"[1]", b'{"object": "list", "data": []}'])
def test_another_program_is_refused(answering, facts):
    told, url = answering
    told["/v1/facts"] = facts
    with pytest.raises(UserError, match="is no `potstill serve` of this version"):
        api(url, None).facts()


def test_another_format_is_refused(answering, model):
    told, url = answering
    told["/v1/facts"] = json.dumps(dataclasses.asdict(model.facts) | {"format": 99, "version": "9.9"}).encode()
    with pytest.raises(UserError, match=r"is potstill 9\.9, whose messages differ"):
        api(url, None).facts()


def test_a_damaged_head_and_a_damaged_tokenizer_are_refused(answering, model):
    told, url = answering
    told["/v1/head"] = model.head[:-1]
    with pytest.raises(UserError, match="another head than it promised"):
        api(url, None).head(model.facts.teacher)
    told["/v1/tokenizer"] = b'{"tokenizer.json": 1}'
    with pytest.raises(UserError, match="gave no tokenizer"):
        api(url, None).tokenizer()
    told["/v1/tokenizer"] = b'{"tokenizer.json": "{}", "../../evil.py": "code"}'
    assert api(url, None).tokenizer() == {"tokenizer.json": "{}"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "a damaged answer"),
        (answer_bytes(torch.zeros(3, 32))[:-1], "a damaged answer"),
        (answer_bytes(torch.zeros(2, 32)), r"gave \[2, 32\] hidden numbers in torch.float32 for 3 tokens"),
        (answer_bytes(torch.zeros(3, 31)), r"gave \[3, 31\]"),
        (answer_bytes(torch.zeros(3, 32, dtype=torch.bfloat16)), "in torch.bfloat16"),
        (answer_bytes(torch.full((3, 32), float("nan"))), "not all numbers"),
        (answer_bytes(torch.full((3, 32), float("inf"))), "not all numbers"),
    ],
)
def test_hidden_states_that_cannot_be_right_are_refused(answering, model, answer, sentence):
    told, url = answering
    told["/v1/hidden"] = answer
    with pytest.raises(UserError, match=sentence):
        api(url, None).hidden(REQUEST, model.facts.teacher)
