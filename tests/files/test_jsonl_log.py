"""A log keeps every whole row, wherever the writing was stopped."""

import gzip

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
    whole = rows[: content[:cut].count(b"\n")]
    log = JsonlLog(file)
    assert log.rows == whole
    log.append(more)
    assert log.rows == whole + more == JsonlLog(file).rows == read_jsonl(file)


@given(rows=ROWS.filter(bool), more=ROWS, data=st.data())
def test_a_changed_byte_is_never_read(tmp_path_factory, rows, more, data):
    """In the rows or in their digests."""
    file = tmp_path_factory.mktemp("log") / "rows.jsonl"
    JsonlLog(file).append(rows)
    damaged = data.draw(st.sampled_from([file, file.with_name(".rows.jsonl.sha256")]))
    content = bytearray(damaged.read_bytes())
    at, flip = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    before = content[:at].count(b"\n")
    content[at] ^= flip
    damaged.write_bytes(content)
    log = JsonlLog(file)
    assert log.rows == rows[:before]
    log.append(more)
    assert log.rows == rows[:before] + more == JsonlLog(file).rows == read_jsonl(file)


def test_dropped_rows_are_said(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    JsonlLog(file).append([{"id": "a"}, {"id": "b"}, {"id": "c"}])
    file.write_text(file.read_text().replace("b", "d"))
    assert JsonlLog(file).rows == [{"id": "a"}]
    assert "rows.jsonl is not as it was written from line 2 on, so the rest is made again" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b'{"id": "b"}{}\n', b"\n", b"[1]\n", b"\xff\n", b'{"id":\n', b"\x00\n", b'{"id": '])
def test_who_reads_a_damaged_log_is_told_its_line_and_changes_nothing(tmp_path, damage):
    file = tmp_path / "rows.jsonl"
    content = b'{"id": "a"}\n' + damage
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"rows\.jsonl, line 2 is damaged \(.+\); remove that line or the file, and run"
    ):
        read_jsonl(file)
    assert file.read_bytes() == content
    with pytest.raises(UserError, match="there is no file"):
        read_jsonl(tmp_path / "other.jsonl")


def test_what_json_cannot_hold_is_not_written(tmp_path):
    log = JsonlLog(tmp_path / "rows.jsonl")
    log.append([{"id": "a"}])
    with pytest.raises(ValueError, match="JSON"):
        log.append([{"id": "b"}, {"loss": float("nan")}])
    assert log.rows == read_jsonl(log.file) == [{"id": "a"}]


def test_a_compressed_log_is_read_whatever_number_of_pieces_it_has(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"id": "a"}\n') + gzip.compress(b'{"id": "\xc3\xb6"}\n'))
    assert read_jsonl(file) == [{"id": "a"}, {"id": "ö"}]
    file.write_bytes(gzip.compress(b""))
    assert read_jsonl(file) == []


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: b"x" + whole, lambda whole: b'{"id": 1}\n'])
def test_a_damaged_compressed_log_is_named(tmp_path, damage):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(damage(gzip.compress(b'{"id": "a"}\n' * 50)))
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz is damaged"):
        read_jsonl(file)


def test_a_changed_byte_of_a_compressed_log_is_damage(tmp_path):
    file, whole = tmp_path / "rows.jsonl.gz", gzip.compress(b'{"id": "a"}\n' * 3)
    # The header's time, flags for readers and system say nothing of the content.
    for at in (0, 1, 2, *range(10, len(whole))):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(UserError, match="is damaged"):
            read_jsonl(file)
