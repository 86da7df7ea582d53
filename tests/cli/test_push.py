"""Push: the options, and what is printed."""

import pytest

from potstill.cli import push as module
from potstill.cli.push import Sharing, push_run
from potstill.errors import UserError
from potstill.export.hub import Upload


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(module, "saved_recipe", lambda folder: None)
    monkeypatch.setattr(module, "upload_of", lambda *given: Upload("# A card", {}, ["the licence of x is unknown"]))
    monkeypatch.setattr(module, "push", lambda upload, name, private: found.append((name, private)) or f"at {name}")
    return found


def test_the_address_and_the_warnings_are_printed(call, sent):
    code, out, err = call("push", "run", "--to", "me/small", "--private")
    assert (code, out) == (0, "at me/small is there\n")
    assert err == "warning: the licence of x is unknown\n"
    assert sent == [("me/small", True)]


def test_a_dry_run_lists_the_files(call, sent):
    code, out, _ = call("push", "run", "--to", "me/small", "--dry-run")
    assert (code, out) == (0, "README.md        8 B\n")
    assert sent == []


@pytest.mark.parametrize(
    "name", ["small", "me/you/small", "https://hub/me/small", "me/", "/small", "m e/small", "me/é"]
)
def test_a_name_without_its_owner_is_refused(sent, tmp_path, name):
    with pytest.raises(UserError, match="is no name on the hub; give one such as user/name"):
        push_run(tmp_path, Sharing(name))


@pytest.mark.parametrize("licence", ["", "Apache 2", "mit\nbase_model: x", "---"])
def test_a_licence_that_the_hub_does_not_have_is_refused(sent, tmp_path, licence):
    with pytest.raises(UserError, match="is no licence of the hub"):
        push_run(tmp_path, Sharing("me/small", licence=licence))


def test_no_run(call):
    code, _, err = call("push", "nowhere", "--to", "me/small")
    assert code == 2
    assert "nowhere is no run folder" in err
