import socket
import ssl

import httpx2
import pytest

from potstill.errors import UserError
from potstill.servers.client import AHEAD, ATTEMPTS, LONGEST_PAUSE, Client, Connection, RefusedError
from servers.faulty_server import Reply, Scripted

PATH = "/version"


def client(server: Scripted, pauses: list[float] | None = None, **more) -> Client:
    waits = [] if pauses is None else pauses
    return Client(Connection("big", server.url, **more), pause=waits.append)


def times(count: int, *replies: Reply | None):
    """These replies one after another, each `count` times."""
    return [lambda *_, reply=reply: reply for reply in replies for _ in range(count)]


BROKEN = {
    "429": Reply(429, {}),
    "500": Reply(500, {"error": "engine died"}),
    "503": Reply(503, b"<html>busy</html>"),
    "dropped": Reply(200, {"version": "0" * 100}, broken_after=20),
    "truncated": Reply(200, b'{"version": "0.3'),
    "nothing": Reply(200, b""),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_or_busy_is_asked_again(server, reply):
    pauses: list[float] = []
    server.faults[PATH] = times(3, reply)
    asked = client(server, pauses)
    assert asked.get(PATH) == {"version": "0.32.0"}
    assert asked.traffic.repeated == 3
    # Each pause is drawn around twice the one before.
    assert all(0.5 * 2**n * 0.5 <= pause <= 0.5 * 2**n * 1.5 for n, pause in enumerate(pauses))


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_a_server_that_stays_broken_is_one_sentence(server, reply):
    server.always[PATH] = lambda *_: reply
    with pytest.raises(UserError, match=f"failed {ATTEMPTS} times in a row.*captured so far is kept"):
        client(server).get(PATH)
    assert len(server.asked) == ATTEMPTS


def test_the_server_says_how_long_to_wait(server):
    pauses: list[float] = []
    slow = [Reply(429, {}, {"Retry-After": "7"}), Reply(503, {}, {"Retry-After": "9999"})]
    server.faults[PATH] = times(1, *slow)
    client(server, pauses).get(PATH)
    assert pauses == [7, LONGEST_PAUSE]


@pytest.mark.parametrize("status", [400, 404, 422, 301])
def test_a_refusal_is_not_asked_again(server, status):
    server.always[PATH] = lambda *_: Reply(status, {"error": {"message": "no such thing"}})
    with pytest.raises(RefusedError, match=f"teachers.big.server.*{status}: no such thing") as refused:
        client(server).get(PATH)
    assert (refused.value.status, refused.value.said) == (status, "no such thing")
    assert len(server.asked) == 1


def test_a_wrong_key_and_a_missing_one_are_told_apart_and_never_shown(server, monkeypatch):
    server.key = "right-secret"
    with pytest.raises(UserError, match=r"teachers.big.key` is missing"):
        client(server).get(PATH)
    with pytest.raises(UserError, match="environment variable BIG_KEY is not set"):
        client(server, key="BIG_KEY")
    monkeypatch.setenv("BIG_KEY", "wrong-secret")
    server.faults[PATH] = [lambda *_: Reply(401, {"error": "wrong-secret is not known"})]
    with pytest.raises(UserError, match="refuses the key in BIG_KEY") as refused:
        client(server, key="BIG_KEY").get(PATH)
    assert "wrong-secret" not in str(refused.value) + refused.value.said
    monkeypatch.setenv("BIG_KEY", "right-secret\n")
    assert client(server, key="BIG_KEY").get(PATH) == {"version": "0.32.0"}


def test_a_key_that_the_server_repeats_is_hidden_after_many_failures(server, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "my-secret")
    server.always[PATH] = lambda *_: Reply(500, {"error": "my-secret failed"})
    with pytest.raises(UserError, match=r"\.\.\. failed") as failed:
        client(server, key="BIG_KEY").get(PATH)
    assert "my-secret" not in str(failed.value)


def test_no_server_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        pauses: list[float] = []
        with pytest.raises(UserError, match="no server answers at http"):
            Client(Connection("big", url), pause=pauses.append).get(PATH)
    assert pauses == []


def test_a_certificate_that_cannot_be_verified_is_one_sentence(server, monkeypatch):
    asked = client(server)

    def fail(*_, **__):
        raise httpx2.ConnectError("failed") from ssl.SSLCertVerificationError("self-signed certificate")

    monkeypatch.setattr(asked._http, "request", fail)
    with pytest.raises(UserError, match=r"certificate of .* cannot be verified .*SSL_CERT_FILE"):
        asked.get(PATH)


def test_a_server_that_was_there_may_go_away_for_a_while(server, monkeypatch):
    asked = client(server)
    asked.get(PATH)
    plain, failures = asked._http.request, [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")]

    def request(*args, **more):
        if failures:
            raise failures.pop(0)
        return plain(*args, **more)

    monkeypatch.setattr(asked._http, "request", request)
    assert asked.get(PATH) == {"version": "0.32.0"}


def test_answers_come_in_order_and_no_more_are_in_flight_than_allowed(server):
    asked = client(server, concurrency=3)
    taken = []

    def items():
        for number in range(40):
            taken.append(number)
            yield number

    answers = asked.in_order(lambda number: (number, asked.get(PATH))[0], items())
    assert next(answers) == 0
    assert len(taken) <= AHEAD * 3 + 1
    assert list(answers) == list(range(1, 40))
    assert server.most_at_once <= 3


def test_fewer_are_in_flight_while_the_server_is_overloaded(server):
    asked = client(server, concurrency=8)
    list(asked.in_order(lambda _: asked.get(PATH), range(60)))
    wide = asked._window.width
    server.faults[PATH] = times(1, Reply(429, {}))
    list(asked.in_order(lambda _: asked.get(PATH), range(1)))
    assert asked._window.width <= wide // 2 + 1


def test_after_a_failure_nothing_more_is_asked(server):
    asked = client(server, concurrency=2)
    taken = []

    def ask(number: int) -> int:
        if number == 3:
            raise UserError("broken")
        return number

    def items():
        for number in range(10**9):
            taken.append(number)
            yield number

    with pytest.raises(UserError, match="broken"):
        list(asked.in_order(ask, items()))
    assert len(taken) <= 4 + 2 * AHEAD


def test_what_was_asked_is_counted(server):
    asked = client(server)
    asked.get(PATH)
    asked.count_tokens(10, 2)
    traffic = asked.traffic
    assert (traffic.requests, traffic.tokens_read, traffic.tokens_written) == (1, 10, 2)
    assert traffic.bytes_received == len('{"version": "0.32.0"}')


def test_a_client_goes_on_after_a_failure(server):
    server.always["/tokenize"] = lambda *_: Reply(400, {"error": "no"})
    asked = client(server, concurrency=2)
    with pytest.raises(UserError, match="no"):
        list(asked.in_order(lambda _: asked.post("/tokenize", {}), range(20)))
    assert asked.get(PATH) == {"version": "0.32.0"}
    assert list(asked.in_order(lambda _: asked.get(PATH)["version"], range(5))) == ["0.32.0"] * 5


def test_requests_that_wait_when_a_client_is_closed_are_given_up(server):
    server.always[PATH] = lambda *_: Reply(503, {"error": "busy"})
    waited = []

    def pause(seconds):
        waited.append(seconds)
        asked.close()

    asked = Client(Connection("big", server.url), pause=pause)
    with pytest.raises(UserError, match="busy"):
        asked.get(PATH)
    assert len(waited) == 1


def test_traffic_that_is_kept_goes_on_where_it_was(server, tmp_path):
    for attempt in range(1, 4):
        asked = client(server)
        asked.keep_traffic(tmp_path / "traffic.json")
        asked.get(PATH)
        assert asked.traffic.requests == attempt
        asked.close()
