"""The manifest: what a step was made from, its cost, and every output with its size and digest."""

import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.pipeline import manifest as manifest_module
from potstill.pipeline.manifest import damaged_outputs, read_manifest, stored_manifest, write_manifest

STEP = {"step": "distil/seed-1", "key": "k", "inputs": {}, "started": "2026-11-27T00:00:00Z", "attempts": 2}
STEP |= {
    "cost": {"seconds": 2.0},
    "summary": {"steps": 3},
    "recipe": {"about": "x"},
    "forecast": None,
    "peak_memory": None,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "weights.bin").write_text("four")
    write_manifest(tmp_path, STEP, [tmp_path / "student"])
    return tmp_path


def test_it_says_what_the_step_was_and_what_it_ran_with(folder):
    manifest = read_manifest(folder)
    assert {name: manifest[name] for name in STEP} == STEP
    assert {"python", "potstill", "torch", "transformers"} <= set(manifest["versions"])
    assert manifest["host"]["cpus"] > 0
    assert manifest["started"] < manifest["finished"]


def test_it_lists_every_file_with_its_size_and_digest(folder):
    digest = "04efaf080f5a3e74e1c29d1ca6a48569382cbbcd324e8d59d2b83ef21c039f00"
    assert read_manifest(folder)["outputs"] == {"student/weights.bin": {"bytes": 4, "sha256": digest}}


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _aged(folder):
    """The folder, after every output was last changed an hour ago, and was verified since."""
    for file in folder.rglob("*.bin"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns - 3600 * 10**9))
    assert read_manifest(folder) is not None
    return folder


@pytest.mark.parametrize("damage", ["gone", "shorter", "a folder", "flipped"])
def test_without_whole_outputs_it_counts_as_none(folder, damage):
    file = folder / "student" / "weights.bin"
    file.unlink()
    if damage == "shorter":
        file.write_text("mad")
    elif damage == "a folder":
        file.mkdir()
    elif damage == "flipped":
        file.write_text("fous")
    assert read_manifest(folder) is None
    assert (folder / "manifest.json").exists()


def test_what_was_verified_and_did_not_change_is_not_read_again(folder, monkeypatch):
    _aged(folder)
    monkeypatch.setattr(manifest_module, "sha256", None)
    assert read_manifest(folder) is not None
    with pytest.raises(TypeError):
        damaged_outputs(folder, stored_manifest(folder), afresh=True)


def test_a_file_that_has_just_changed_is_read_again(folder, monkeypatch):
    # Another change may leave it the same modification time.
    assert json.loads((folder / "verified.json").read_text()) == {}
    assert read_manifest(folder) is not None
    monkeypatch.setattr(manifest_module, "sha256", lambda file: "another")
    assert read_manifest(folder) is None


@pytest.mark.parametrize("how", ["rewritten", "replaced by another", "copied"])
def test_a_verified_file_that_changed_is_read_again(folder, tmp_path_factory, how):
    file = _aged(folder) / "student" / "weights.bin"
    if how == "rewritten":
        _flip(file)
    elif how == "replaced by another":
        before, other = file.stat().st_mtime_ns, file.with_name("other")
        other.write_text("rouf")
        os.utime(other, ns=(0, before))
        other.rename(file)
    else:
        folder = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "copy")
        before = file.stat().st_mtime_ns
        _flip(folder / "student" / "weights.bin")
        os.utime(folder / "student" / "weights.bin", ns=(0, before))
    assert read_manifest(folder) is None
    assert damaged_outputs(folder, stored_manifest(folder)) == {"student/weights.bin": "damaged"}


def test_a_change_with_the_former_time_is_found_afresh_and_known_from_then_on(folder):
    file = _aged(folder) / "student" / "weights.bin"
    before = file.stat().st_mtime_ns
    _flip(file)
    os.utime(file, ns=(0, before))
    assert read_manifest(folder) is not None, "as the guide says"
    assert damaged_outputs(folder, stored_manifest(folder), afresh=True) == {"student/weights.bin": "damaged"}
    assert read_manifest(folder) is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '{"student/weights.bin": 3}', "\x00\x01"])
def test_what_is_remembered_may_be_missing_or_damaged(folder, content):
    remembered = _aged(folder) / "verified.json"
    whole = remembered.read_text()
    remembered.unlink()
    if content is not None:
        remembered.write_text(content)
    assert read_manifest(folder) is not None
    assert remembered.read_text() == whole
    _flip(folder / "student" / "weights.bin")
    assert read_manifest(folder) is None


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, monkeypatch):
    def refuse(file, value):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifest_module, "write_json", refuse)
    assert read_manifest(_aged(folder)) is not None
    assert json.loads((folder / "verified.json").read_text()) == {}


def test_without_a_file_there_is_none(tmp_path):
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "3", "[]", "{}", '{"outputs": {}}', '{"outputs": {"a": 3}}'])
def test_a_damaged_one_is_named(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json is damaged.*; remove it"):
        read_manifest(folder)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_flipped_bit_goes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped")
    content = data.draw(st.binary(min_size=1, max_size=40))
    file = folder / "weights.bin"
    file.write_bytes(content)
    write_manifest(folder, STEP, [file])
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    assert read_manifest(folder) is None
    file.write_bytes(content)
    assert read_manifest(folder) is not None


def test_an_output_that_does_not_exist_is_a_mistake_of_the_stage(tmp_path):
    with pytest.raises(AssertionError, match="nowhere, which does not exist"):
        write_manifest(tmp_path, STEP, [tmp_path / "nowhere"])
