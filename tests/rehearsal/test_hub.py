"""The stand-in of the hub answers as the hub: repositories, folders, parts of files."""

import json
import urllib.error
import urllib.request

import pytest

from potstill.rehearsal.hub import COMMIT, hub


@pytest.fixture
def address(tmp_path):
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "train.jsonl").write_text("0123456789")
    (tmp_path / "README.md").write_text("card")
    with hub({"datasets/a/b": tmp_path}) as found:
        yield found


def ask(address, path, data=None, **headers):
    request = urllib.request.Request(f"{address}/{path}", data=data, headers=headers)
    return urllib.request.urlopen(request)


def test_a_repository_lists_its_files(address):
    about = json.load(ask(address, "api/datasets/a/b"))
    assert about["sha"] == COMMIT
    assert [one["rfilename"] for one in about["siblings"]] == ["README.md", "main/train.jsonl"]
    at_top = json.load(ask(address, "api/datasets/a/b/tree/main"))
    assert [(one["type"], one["path"]) for one in at_top] == [("file", "README.md"), ("directory", "main")]
    every = json.load(ask(address, "api/datasets/a/b/tree/main?recursive=True"))
    assert len(every) == 3
    below = json.load(ask(address, "api/datasets/a/b/tree/main/main"))
    assert [one["path"] for one in below] == ["main/train.jsonl"]
    asked = ask(address, "api/datasets/a/b/paths-info/main", json.dumps({"paths": ["README.md", "no"]}).encode())
    assert [one["path"] for one in json.load(asked)] == ["README.md"]


def test_a_file_is_given_in_parts(address):
    whole = ask(address, f"datasets/a/b/resolve/{'1' * 40}/main/train.jsonl")
    assert (whole.read(), whole.headers["X-Repo-Commit"]) == (b"0123456789", "1" * 40)
    part = ask(address, "datasets/a/b/resolve/main/main/train.jsonl", Range="bytes=2-4")
    assert (part.status, part.read(), part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert ask(address, "datasets/a/b/resolve/main/main/train.jsonl", Range="bytes=7-").read() == b"789"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("api/datasets/a/other", "RepoNotFound"),
        ("datasets/a/b/resolve/main/other.jsonl", "EntryNotFound"),
        ("api/datasets/a/b/tree/main/other", "EntryNotFound"),
        ("elsewhere", None),
    ],
)
def test_what_is_not_there_is_not_found(address, path, code):
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(address, path)
    assert (error.value.code, error.value.headers.get("X-Error-Code")) == (404, code)
