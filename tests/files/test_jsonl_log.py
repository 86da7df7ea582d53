"""A log keeps every whole row, wherever the writing was stopped."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.files.jsonl_log import JsonlLog, read_jsonl

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5)


def test_rows_come_back_in_their_order(tmp_path):
    file = tmp_path / "rows.jsonl"
    log = JsonlLog(file)
    assert log.rows == []
    log.append([{"id": "a", "text": "größer\n\u2028"}, {"id": "b"}])
    log.append([{"id": "c"}])
    rows = [{"id": "a", "text": "größer\n\u2028"}, {"id": "b"}, {"id": "c"}]
    assert log.rows == rows == JsonlLog(file).rows == read_jsonl(file)
    assert "größer" in file.read_text(encoding="utf-8"), "a person can read it"


@given(rows=ROWS, more=ROWS, data=st.data())
def test_cut_anywhere_it_keeps_the_whole_rows_and_goes_on(tmp_path_factory, rows, more, data):
    file = tmp_path_factory.mktemp("log") / "rows.jsonl"
    JsonlLog(file).append(rows)
    content = file.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    file.write_bytes(content[:cut])
    ends, at = [], 0
    for row in rows:
        at += len((json.dumps(row, ensure_ascii=False)).encode())
        ends.append(at)
        at += 1
    whole = [row for row, end in zip(rows, ends, strict=True) if end <= cut]
    log = JsonlLog(file)
    assert log.rows == whole
    log.append(more)
    assert log.rows == whole + more == JsonlLog(file).rows == read_jsonl(file)


@pytest.mark.parametrize("damage", [b'{"id": "b"}{}\n', b"\n", b"[1]\n", b"\xff\n", b'{"id":\n', b"\x00\n"])
def test_damage_that_is_no_cut_is_told_by_its_line(tmp_path, damage):
    file = tmp_path / "rows.jsonl"
    content = b'{"id": "a"}\n' + damage + b'{"id": "c"}\n'
    file.write_bytes(content)
    for opened in (JsonlLog, read_jsonl):
        with pytest.raises(
            UserError, match=r"rows\.jsonl, line 2 is damaged \(.+\); remove that line or the file, and run"
        ):
            opened(file)
    assert file.read_bytes() == content, "a damaged file is left for a person to inspect"


def test_a_finished_log_is_not_mended_by_who_reads_it(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": "a"}\n{"id": ')
    with pytest.raises(UserError, match=r"line 2 is damaged \(it is cut short\)"):
        read_jsonl(file)
    assert file.read_bytes() == b'{"id": "a"}\n{"id": '
    with pytest.raises(UserError, match="there is no file"):
        read_jsonl(tmp_path / "other.jsonl")


def test_what_json_cannot_hold_is_not_written(tmp_path):
    log = JsonlLog(tmp_path / "rows.jsonl")
    log.append([{"id": "a"}])
    with pytest.raises(ValueError, match="JSON"):
        log.append([{"id": "b"}, {"loss": float("nan")}])
    assert log.rows == read_jsonl(log.file) == [{"id": "a"}]
