"""Sealed files: what is read is what was written, or nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.files.sealed import HASHES, changed_file, damage, file_hashes, read_sealed, write_hashes, write_sealed

VALUES = st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=4)


@given(value=VALUES)
def test_what_was_written_comes_back(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("sealed") / "value.json"
    value.pop("digest", None)
    write_sealed(file, value)
    assert read_sealed(file) == value


def test_it_comes_back_as_json_has_it(tmp_path):
    write_sealed(tmp_path / "value.json", {"pairs": ((1, 2),), "of": {3: 0.1, 20: 0.2}})
    assert read_sealed(tmp_path / "value.json") == {"pairs": [[1, 2]], "of": {"3": 0.1, "20": 0.2}}


@given(data=st.data())
def test_no_flipped_bit_gives_another_value(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("flipped") / "value.json"
    value = {"loss": 2.75, "model": "größer", "steps": [1, 2, 3]}
    write_sealed(file, value)
    bit = data.draw(st.integers(0, 8 * file.stat().st_size - 1))
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    assert read_sealed(file) in (None, value), "a flipped bit between the words may leave the same value"


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", "3", '{"a": 1}', '{"a": 1, "digest": ""}', "[" * 100_000])
def test_what_is_not_sealed_is_said_and_made_again(tmp_path, capsys, content):
    file = tmp_path / "value.json"
    file.write_text(content)
    assert read_sealed(file) is None
    assert "value.json is not as it was written, so it is made again" in capsys.readouterr().out
    file.unlink()
    assert read_sealed(file) is None
    assert capsys.readouterr().out == "", "a file that is not there was not damaged"
    file.mkdir()
    assert read_sealed(file) is None


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "step-3" / "part").mkdir(parents=True)
    (tmp_path / "step-3" / "model.safetensors").write_text("weights")
    (tmp_path / "step-3" / "part" / "config.json").write_text("{}")
    write_hashes(tmp_path / "step-3")
    return tmp_path / "step-3"


@given(data=st.data())
def test_no_flipped_bit_gives_other_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped")
    (folder / "model.safetensors").write_text("weights")
    write_hashes(folder)
    assert damage(folder) is None
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    before = file.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    content = bytearray(before)
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    # A flipped bit in the spaces of hashes.json may leave the same hashes.
    harmless = file.name == HASHES and _same_json(before, bytes(content))
    assert (damage(folder) is None) == harmless


def _same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("content", ["null", "[]", "{}", "3", '{"files": {}}', '{"files": {}, "digest": ""}'])
def test_hashes_that_say_nothing_are_damaged(folder, content):
    (folder / HASHES).write_text(content)
    assert damage(folder) == "its hashes.json is damaged"


def test_each_damage_is_named(folder):
    assert damage(folder) is None
    (folder / "part" / "config.json").unlink()
    assert damage(folder) == "its file part/config.json is missing"
    (folder / "part" / "config.json").mkdir()
    assert damage(folder) == "its file part/config.json cannot be read"
    (folder / HASHES).unlink()
    assert damage(folder).startswith("it has no hashes.json")


def test_files_and_folders_are_hashed_under_one_name_each(folder):
    hashes = file_hashes(folder.parent, folder / "part", folder / "model.safetensors")
    assert list(hashes) == ["step-3/model.safetensors", "step-3/part/config.json"]
    assert changed_file(folder.parent, hashes) is None
