"""The manifest: what a step was made from, its cost, and every output with its size and digest."""

import pytest

from potstill.errors import UserError
from potstill.pipeline.manifest import read_manifest, write_manifest

STEP = {"step": "distil/seed-1", "key": "k", "inputs": {}, "started": "2026-11-27T00:00:00Z", "attempts": 2}
STEP |= {"cost": {"seconds": 2.0}, "summary": {"steps": 3}, "recipe": {"about": "x"}}


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


@pytest.mark.parametrize("damage", ["gone", "shorter", "a folder"])
def test_without_whole_outputs_it_counts_as_none(folder, damage):
    file = folder / "student" / "weights.bin"
    file.unlink()
    if damage == "shorter":
        file.write_text("mad")
    elif damage == "a folder":
        file.mkdir()
    assert read_manifest(folder) is None
    assert (folder / "manifest.json").exists()


def test_without_a_file_there_is_none(tmp_path):
    assert read_manifest(tmp_path) is None


def test_a_damaged_one_is_named(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged .*; remove it"):
        read_manifest(folder)


def test_an_output_that_does_not_exist_is_a_mistake_of_the_stage(tmp_path):
    with pytest.raises(AssertionError, match="nowhere, which does not exist"):
        write_manifest(tmp_path, STEP, [tmp_path / "nowhere"])
