from collections.abc import Iterator

import pytest

from servers.faulty_server import Scripted, serving
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
