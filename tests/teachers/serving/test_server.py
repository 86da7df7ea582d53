"""The HTTP server: what it gives, what it refuses, and what it does with clients that go away."""

import asyncio
import dataclasses
import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from potstill.errors import UserError
from potstill.servers.hidden_states_format import HiddenRequest, hidden_of_answer
from potstill.teachers.serving import server
from potstill.teachers.serving.server import application, check_host, running
from tiny import llama
from toy_server import asked, refusal, served, serving

KEY = "a-key"
BEARER = {"Authorization": f"Bearer {KEY}"}


def request(*lengths, first=2):
    ids = [np.arange(first, first + length, dtype=np.int32) for length in lengths]
    return HiddenRequest.of_rows(ids, [np.arange(length) > 0 for length in lengths])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served(llama(0), tmp_path_factory.mktemp("served"), batch_tokens=256)


@pytest.fixture(scope="module")
def url(model):
    """A server without a key."""
    with serving(application(model, None)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(model):
    """A server with a key."""
    with serving(application(model, KEY)) as found:
        yield found


def test_it_gives_the_hidden_states_of_a_request(url, model):
    status, body, headers = asked(f"{url}/hidden", request(3, 5).to_bytes())
    assert status == 200
    assert torch.equal(hidden_of_answer(body), model.read([request(3, 5)])[0])
    assert asked(f"{url}/hidden", request(3, 5).to_bytes())[2]["ETag"] == headers["ETag"]
    assert asked(f"{url}/hidden", request(5, 3).to_bytes())[2]["ETag"] != headers["ETag"]


def test_it_gives_the_head_once(url, model):
    status, body, headers = asked(f"{url}/head")
    assert (status, body) == (200, model.head)
    assert headers["ETag"] == f'"{model.facts.teacher.head.fingerprint}"'
    assert asked(f"{url}/head", If_None_Match=headers["ETag"])[:2] == (304, b"")
    assert asked(f"{url}/head", If_None_Match='"another"')[0] == 200


def test_it_gives_its_facts_and_its_tokenizer(url, model):
    assert json.loads(asked(f"{url}/facts")[1]) == dataclasses.asdict(model.facts)
    assert json.loads(asked(f"{url}/tokenizer")[1]) == model.tokenizer


@pytest.mark.parametrize("path", ["facts", "head", "tokenizer", "hidden", "nothing"])
@pytest.mark.parametrize(
    "headers",
    [{}]
    + [
        {"Authorization": given}
        for given in ("", KEY, "Bearer", "Bearer ", "Bearer no", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer \xe9")
    ],
)
def test_whoever_does_not_carry_the_key_is_refused(locked, path, headers):
    body = request(3).to_bytes() if path == "hidden" else None
    assert refusal(f"{locked}/{path}", body, **headers) == (401, "the request does not carry this server's key")


def test_whoever_carries_the_key_is_answered(locked):
    assert asked(f"{locked}/facts", **BEARER)[0] == 200
    assert asked(f"{locked}/hidden", request(3).to_bytes(), **BEARER)[0] == 200
    assert asked(f"{locked}/facts", Authorization=f"bearer {KEY}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "no safetensors"),
        (b"PK\x03\x04", 400, "no safetensors"),
        (request(129).to_bytes(), 400, "a row has 129 tokens, and the teacher reads at most 128"),
        (request(100, 1, 1).to_bytes(), 400, "300 tokens with pads, and this server takes 256"),
        (request(9, first=295).to_bytes(), 400, "no token 300"),
        (request(3, first=-1).to_bytes(), 400, "no token -1"),
        (save({"ids": np.zeros(10**5, np.int32)}), 413, "the body has more than 6,400 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused(url, body, status, sentence):
    found, told = refusal(f"{url}/hidden", body)
    assert found == status
    assert sentence in told
    assert asked(f"{url}/facts")[0] == 200


def test_a_body_of_unknown_length_is_read_only_up_to_the_limit(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/v1/hidden", iter([bytes(4000)] * 4), encode_chunked=True)
    found = connection.getresponse()
    assert found.status == 413
    assert "more than 6,400 bytes" in json.loads(found.read())["error"]


@pytest.mark.parametrize(("path", "body", "status"), [("hidden", None, 405), ("facts", b"", 405), ("other", None, 404)])
def test_other_addresses_and_methods_are_refused(url, path, body, status):
    found, told = refusal(f"{url}/{path}", body)
    assert found == status
    assert f"/v1/{path} is not served" in told


class Waits:
    """In place of a teacher: reads nothing until it may."""

    def __init__(self, monkeypatch, model):
        self.may_read, self.began, self.read_ids = Event(), Event(), []
        self._read = model.read
        monkeypatch.setattr(type(model), "read", lambda _, requests: self.read(requests))

    def read(self, requests):
        self.began.set()
        self.may_read.wait()
        self.read_ids += [int(one.ids[0]) for one in requests]
        return self._read(requests)


def test_a_client_that_goes_away_before_its_turn_is_not_computed_for(model, monkeypatch):
    waits = Waits(monkeypatch, model)
    with serving(application(model, None)) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(asked, f"{url}/hidden", request(3, first=10).to_bytes())
        waits.began.wait()
        gone = http.client.HTTPConnection(urlsplit(url).netloc)
        gone.request("POST", "/v1/hidden", request(3, first=20).to_bytes())
        asked(f"{url}/facts")  # so that the server has seen the request
        gone.close()
        last = pool.submit(asked, f"{url}/hidden", request(3, first=30).to_bytes())
        asked(f"{url}/facts")
        waits.may_read.set()
        assert first.result()[0] == last.result()[0] == 200
    assert waits.read_ids == [10, 30]


def test_too_many_requests_are_told_to_come_back(model, monkeypatch):
    waits = Waits(monkeypatch, model)
    monkeypatch.setattr(server, "MOST_REQUESTS", 1)
    with serving(application(model, None)) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(asked, f"{url}/hidden", request(3).to_bytes())
        waits.began.wait()
        status, body, headers = asked(f"{url}/hidden", request(4).to_bytes())
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "ask again later" in json.loads(body)["error"]
        waits.may_read.set()
        assert first.result()[0] == 200
        assert asked(f"{url}/hidden", request(4).to_bytes())[0] == 200


def test_requests_in_flight_are_finished_at_the_end(model, monkeypatch):
    waits = Waits(monkeypatch, model)
    with ThreadPoolExecutor() as pool:
        with serving(application(model, None)) as url:
            answers = [pool.submit(asked, f"{url}/hidden", request(3, first=first).to_bytes()) for first in (10, 20)]
            waits.began.wait()
            asked(f"{url}/facts")
            waits.may_read.set()
        assert [one.result()[0] for one in answers] == [200, 200]


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 503, "start the server with fewer `--batch-tokens`"),
        (RuntimeError("secret paths"), 500, "the server failed (RuntimeError); its log says why"),
    ],
)
def test_a_teacher_that_fails_is_told_and_the_server_lives_on(model, monkeypatch, error, status, sentence):
    read, errors = type(model).read, [error]

    def fails_once(self, requests):
        if errors:
            raise errors.pop()
        return read(self, requests)

    monkeypatch.setattr(type(model), "read", fails_once)
    with serving(application(model, None)) as url:
        found, told = refusal(f"{url}/hidden", request(3).to_bytes())
        assert found == status
        assert sentence in told
        assert asked(f"{url}/hidden", request(3).to_bytes())[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_this_machine_alone_needs_no_key(host):
    check_host(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_other_machines_need_a_key(host):
    check_host(host, KEY)
    with pytest.raises(UserError, match=r"can be reached from other machines; name .* `--key`"):
        check_host(host, None)


@pytest.mark.parametrize("host", ["", "no host at all", "x" * 80])
def test_a_host_that_does_not_exist_is_refused(host):
    with pytest.raises(UserError, match="there is no such host"):
        check_host(host, None)


def test_a_port_that_is_taken_is_refused(model):
    async def bind(port):
        async with running(application(model, None), "127.0.0.1", port):
            pass

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"`--port \d+` cannot be used \(.*address already in use"):
            asyncio.run(bind(taken.getsockname()[1]))
