import pytest

from potstill.errors import UserError
from potstill.servers.client import Client, Connection
from potstill.servers.same_tokens import check_same_tokens
from potstill.servers.vllm import VllmApi
from servers.faulty_server import MODEL, Reply, Scripted
from tiny import tokenizer


def check(server: Scripted) -> None:
    client = Client(Connection("big", server.url), pause=lambda _: None)
    check_same_tokens(client, VllmApi(client, MODEL), tokenizer())


class Swapped:
    """The tiny tokenizer with two ids in each other's place."""

    def __init__(self, one: int, other: int) -> None:
        self._to, self._plain = {one: other, other: one}, tokenizer()

    def encode(self, text: str, **how) -> list[int]:
        return [self._to.get(id, id) for id in self._plain.encode(text, **how)]

    def decode(self, ids: list[int], **how) -> str:
        return self._plain.decode([self._to.get(id, id) for id in ids], **how)


def test_the_same_tokenizer_is_proven_over_its_whole_vocabulary(server):
    check(server)
    shown = {id for path, body in server.asked if path == "/detokenize" for id in body["tokens"]}
    assert shown == set(tokenizer().get_vocab().values())


def byte(character: str, number: int) -> int:
    return tokenizer().encode(character)[number]


SWAPS = {
    "two words": (280, 290),
    "two special tokens": (0, 1),
    "two letters": (byte("q", 0), byte("z", 0)),
    # Neither has a text of its own, so that only texts of whole characters tell them apart.
    "two last bytes of characters": (byte("Ā", 1), byte("ā", 1)),
    "two first bytes of characters": (byte("Ā", 0), byte("Ѐ", 0)),
    "first bytes of the rarest characters": (byte("\U00010000", 0), byte("\U00040003", 0)),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_two_ids_in_each_others_place_are_noticed(server, swap):
    server.words = Swapped(*swap)
    with pytest.raises(UserError, match=r"teachers.big.tokenizer`"):
        check(server)


def test_the_first_id_that_differs_is_named(server):
    server.words = Swapped(280, 290)
    named = tokenizer().decode([280]), tokenizer().decode([290])
    with pytest.raises(UserError) as refused:
        check(server)
    assert f"id 280 is {named[0]!r} there and {named[1]!r} at" in str(refused.value)


def test_a_server_that_does_not_show_its_tokens_is_refused(server):
    server.always["/detokenize"] = lambda *_: Reply(200, {"answer": 1})
    with pytest.raises(UserError, match="without `prompt`"):
        check(server)
