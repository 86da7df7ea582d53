"""Trackers get student, control and verdict as runs of one project, with the same series."""

import os
import struct
import sys
from types import SimpleNamespace

import pytest

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.report.trackers import TrackedRun
from potstill.training.trackers import tracked
from tiny import toy_recipe

FEW = ("distil.training.max_steps=3", "evaluate.samples=0", "capture=null", "seeds=[0]")
RUNS = {"student-seed-0", "control-seed-0", "verdict"}


def events(folder):
    """The scalars (name to values) and texts of the event files in a folder of TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, texts = {}, {}
    for file in sorted(folder.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            # A record: its length, a checksum of 4 bytes, the event, a checksum.
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    scalars.setdefault(value.tag, []).append(value.simple_value)
                else:
                    texts[value.tag] = b"".join(value.tensor.string_val).decode()
    return scalars, texts


@pytest.mark.slow
def test_tensorboard_gets_student_control_and_verdict(tmp_path):
    pytest.importorskip("tensorboardX")
    run = Run(tmp_path / "mine")
    run_recipe(toy_recipe(tmp_path, *FEW, "distil.training.report_to=tensorboard"), run)
    folder = run.folder / "trackers" / "tensorboard"
    assert {one.name for one in folder.iterdir()} == RUNS
    names = ("student-seed-0", "control-seed-0", "verdict")
    (student, _), (control, _), (figures, texts) = (events(folder / name) for name in names)
    assert len(student["train/cross_entropy"]) == len(control["train/cross_entropy"]) == 3
    assert set(student) - set(control) == {"train/forward_kl"}
    assert {"loss/teacher", "loss/student", "loss/control"} <= set(figures)
    assert "held-out documents" in "".join(texts.values())


@pytest.mark.slow
def test_trackio_gets_student_control_and_verdict(tmp_path, monkeypatch):
    # Trackio reads it when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    run_recipe(toy_recipe(tmp_path, *FEW, "distil.training.report_to=trackio"), Run(tmp_path / "mine"))
    runs = {one.name: one for one in trackio.Api().runs("mine")}
    assert set(runs) == {f"mine-{name}" for name in RUNS}


def test_a_run_of_wandb_is_ended_after_its_training(monkeypatch):
    ended = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(finish=lambda: ended.append(os.environ["WANDB_PROJECT"])))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[]), args=SimpleNamespace(report_to=["wandb"]))
    with tracked(trainer, TrackedRun("mine", "mine-student", None)):
        assert os.environ["WANDB_PROJECT"] == "mine"
        assert ended == []
    assert ended == ["mine"]
    assert "WANDB_PROJECT" not in os.environ
