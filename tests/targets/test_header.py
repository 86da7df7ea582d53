import json
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.targets.header import read_header, write_header


def changed(store: Path, **fields: object) -> None:
    path = store / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_it_comes_back_as_it_was_written(store: Path, tmp_path: Path) -> None:
    header = read_header(store)
    (tmp_path / "copy").mkdir()
    write_header(tmp_path / "copy", header)
    assert read_header(tmp_path / "copy") == header
    assert (tmp_path / "copy" / "store.json").read_bytes() == (store / "store.json").read_bytes()


def test_another_version_is_refused_with_both(store: Path) -> None:
    changed(store, version=7)
    with pytest.raises(UserError, match="format version 7, this potstill reads version 1"):
        read_header(store)


def test_another_format_is_refused(store: Path) -> None:
    changed(store, format="something else")
    with pytest.raises(UserError, match="not the header of captured targets"):
        read_header(store)


def test_a_change_by_hand_is_refused(store: Path) -> None:
    changed(store, tokens=1)
    with pytest.raises(UserError, match="wrong checksum"):
        read_header(store)


def test_what_is_no_json_is_refused(store: Path) -> None:
    (store / "store.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match="is damaged"):
        read_header(store)
