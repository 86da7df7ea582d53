from collections.abc import Iterator

import pytest

from servers.faulty_server import Scripted, serving
from servers.writing_server import WritingServer, chat_words
from tiny import llama


@pytest.fixture(scope="module")
def one_server() -> Iterator[Scripted]:
    with serving(Scripted(llama(0))) as running:
        yield running


@pytest.fixture
def server(one_server: Scripted) -> Scripted:
    """A server that does what it should; a test tells it otherwise."""
    fresh = Scripted(one_server.model, url=one_server.url)
    for name in ("key", "longest", "most_k", "words", "faults", "always", "asked", "most_at_once"):
        setattr(one_server, name, getattr(fresh, name))
    return one_server


@pytest.fixture(scope="module")
def one_writer() -> Iterator[WritingServer]:
    with serving(WritingServer(llama(0), words=chat_words())) as running:
        yield running


@pytest.fixture
def writer(one_writer: WritingServer) -> WritingServer:
    """A server that tells the distributions of what it writes; a test tells it otherwise."""
    fresh = WritingServer(one_writer.model, url=one_writer.url, words=one_writer.words, says=lambda _: "the old town")
    for name in ("key", "longest", "faults", "always", "asked", "says", "tells_end"):
        setattr(one_writer, name, getattr(fresh, name))
    return one_writer
