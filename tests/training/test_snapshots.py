"""Snapshots in a folder: which are whole, which an option names, and their mean."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from potstill.errors import UserError
from potstill.training.snapshots import average, check_whole, select_snapshots, snapshot_folder, whole_snapshots
from tiny import llama


@pytest.fixture
def training(tmp_path):
    """Five snapshots with different weights."""
    for step in range(10, 60, 10):
        llama(step, layers=1).save_pretrained(snapshot_folder(tmp_path, step))
    return tmp_path


def _steps(snapshots):
    return [snapshot.step for snapshot in snapshots]


def _cut(file):
    file.write_bytes(file.read_bytes()[:-100])


BREAK = {
    "it has no model.safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "its model.safetensors is cut off": lambda folder: _cut(folder / "model.safetensors"),
    "its config.json is not JSON": lambda folder: (folder / "config.json").write_text('{"model_type": "ll'),
}


@pytest.mark.parametrize("wrong", BREAK)
def test_what_is_half_written_is_passed_over_and_refused_by_name(training, wrong):
    BREAK[wrong](snapshot_folder(training, 30))
    assert _steps(whole_snapshots(training)) == [10, 20, 40, 50]
    assert _steps(select_snapshots("all", whole_snapshots(training), training)) == [10, 20, 40, 50]
    with pytest.raises(UserError, match=rf"step-30 is not a whole model: {wrong}"):
        select_snapshots("20,30", whole_snapshots(training), training)
    assert _steps(select_snapshots("20,30", whole_snapshots(training), training, waits=True)) == [20]


def test_what_is_still_being_written_has_another_name(training):
    snapshot_folder(training, 20).rename(snapshot_folder(training, 20).with_name(".step-20.partial"))
    assert _steps(whole_snapshots(training)) == [10, 30, 40, 50]
    assert whole_snapshots(training / "none") == []


@pytest.mark.parametrize(
    ("which", "steps"),
    [
        ("all", [10, 20, 30, 40, 50]),
        ("every:2", [20, 40]),
        ("every:5", [50]),
        ("every:9", []),
        ("last:2", [40, 50]),
        ("last:9", [10, 20, 30, 40, 50]),
        ("40,10", [10, 40]),
    ],
)
def test_any_subset_can_be_asked_for(training, which, steps):
    assert _steps(select_snapshots(which, whole_snapshots(training), training)) == steps


@pytest.mark.parametrize("which", ["every:0", "first:2", "10, 20", "", "last"])
def test_what_is_no_subset_is_refused(training, which):
    with pytest.raises(UserError, match=r"say `all`, `every:10`, `last:5`, or steps"):
        select_snapshots(which, whole_snapshots(training), training)


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(training):
    with pytest.raises(UserError, match=r"step-15 is not there; there are the steps 10, 20, 30, 40, 50"):
        select_snapshots("15", whole_snapshots(training), training)


def test_a_mean_is_the_mean_in_float32_and_a_whole_model(training, tmp_path):
    folders = [snapshot_folder(training, step) for step in (10, 20, 50)]
    average(folders, tmp_path / "mean")
    check_whole(tmp_path / "mean")
    parts = [load_file(folder / "model.safetensors") for folder in folders]
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    for name, weight in mean.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-7)
    llama(layers=1).from_pretrained(tmp_path / "mean")


def test_sixteen_bits_are_summed_in_thirty_two(tmp_path):
    # In bfloat16, 256 + 1 is 256: the sum of three would lose the ones.
    for at, value in enumerate((256.0, 1.0, 1.0)):
        (tmp_path / str(at)).mkdir()
        save_file({"w": torch.full((2,), value, dtype=torch.bfloat16)}, tmp_path / str(at) / "model.safetensors")
    average([tmp_path / str(at) for at in range(3)], tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "model.safetensors")["w"]
    assert mean.dtype == torch.bfloat16
    assert mean.tolist() == torch.tensor([86.0, 86.0], dtype=torch.bfloat16).tolist()
