"""Resume: a stopped training goes on from its last whole checkpoint, to the same weights."""

import json
import os
import shutil
import signal

import pytest
from safetensors.torch import load_file

from interrupt import stopped_at
from potstill.errors import UserError
from potstill.files.sealed import damage, write_hashes
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training.resume import (
    SAME_SIGNAL,
    StopAtStepEnd,
    check_written_alike,
    checkpoint_to_resume,
    relocate_best_checkpoint,
)
from potstill.training.trainer import DistilTrainer
from tiny import llama, toy_recipe


def _log(run, step):
    return [json.loads(line) for line in (run.path(step) / "log.jsonl").read_text().splitlines()]


def _weights(run):
    return (run.path("distil/seed-0") / "student" / "model.safetensors").read_bytes()


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "flipped": _flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "removed": lambda file: file.unlink(),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


def _checkpoint(folder, number, best=None):
    """A checkpoint that is whole, of two files."""
    checkpoint = folder / f"checkpoint-{number}"
    checkpoint.mkdir(parents=True)
    best = best and f"/elsewhere/checkpoint-{best}"
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": number, "best_model_checkpoint": best}))
    (checkpoint / "model.safetensors").write_text(f"the weights of step {number}")
    write_hashes(checkpoint)
    return checkpoint


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json", "hashes.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, capsys, name, how):
    older, newer = _checkpoint(tmp_path, 9), _checkpoint(tmp_path, 10)
    assert checkpoint_to_resume(tmp_path) == newer
    assert capsys.readouterr().out == ""
    DAMAGE[how](newer / name)
    assert checkpoint_to_resume(tmp_path) == older
    (told,) = capsys.readouterr().out.splitlines()
    assert told.startswith("  checkpoint-10 is passed over: ")
    assert name in told
    assert (tmp_path / "damaged-checkpoint-10").is_dir(), "what is written under its name must not mix with it"
    assert not newer.exists()


def test_a_checkpoint_without_hashes_was_not_written_to_its_end(tmp_path, capsys):
    checkpoint = _checkpoint(tmp_path, 3)
    (checkpoint / "hashes.json").unlink()
    assert checkpoint_to_resume(tmp_path) is None
    one, other = capsys.readouterr().out.splitlines()
    assert one.startswith("  checkpoint-3 is passed over: it has no hashes.json, because it was not written to its end")
    assert other == "  no checkpoint is whole, so the training begins anew"
    assert checkpoint_to_resume(tmp_path / "none") is None
    assert capsys.readouterr().out == "", "a training that has not begun does not begin anew"


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    whole = _checkpoint(tmp_path, 3)
    (tmp_path / "checkpoint-copy").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert checkpoint_to_resume(tmp_path) == whole
    assert (tmp_path / "checkpoint-copy").is_dir()


def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(tmp_path, capsys):
    oldest, best, _ = (
        _checkpoint(tmp_path, 1, best=1),
        _checkpoint(tmp_path, 2, best=2),
        _checkpoint(tmp_path, 3, best=2),
    )
    _flip(best / "model.safetensors")
    assert checkpoint_to_resume(tmp_path) == oldest
    told = capsys.readouterr().out.splitlines()
    assert "checkpoint-3 is passed over: the best weights so far are in checkpoint-2, and its file model" in told[0]
    assert "checkpoint-2 is passed over: its file model.safetensors is not as it was written" in told[1]


def test_the_path_of_the_best_weights_is_corrected_and_the_checkpoint_stays_whole(tmp_path):
    _, last = _checkpoint(tmp_path, 2, best=2), _checkpoint(tmp_path, 3, best=2)
    relocate_best_checkpoint(last)
    state = json.loads((last / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")
    assert damage(last) is None


FILES = (
    "config.json",
    "generation_config.json",
    "hashes.json",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training_args.bin",
)
"""The files of a checkpoint of the toy recipe."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A toy training that was stopped with two checkpoints, its recipe, and the weights that it has without a stop."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = toy_recipe(folder, "distil.training.save_steps=1")
    whole, cut = Run(folder / "whole"), Run(folder / "cut")
    run_recipe(recipe, whole, until="distil")
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(4, recipe, cut, patch)
    checkpoints = cut.path("distil/seed-0") / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    assert tuple(sorted(file.name for file in (checkpoints / "checkpoint-4").iterdir())) == FILES
    assert set(json.loads((checkpoints / "checkpoint-4" / "hashes.json").read_text())["files"]) == {*FILES} - {
        "hashes.json"
    }
    return recipe, cut.folder, _weights(whole)


@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
@pytest.mark.parametrize("name", FILES)
def test_a_training_with_a_damaged_checkpoint_ends_in_the_same_weights(stopped, tmp_path, capsys, name, how):
    recipe, cut, weights = stopped
    run = Run(shutil.copytree(cut, tmp_path / "run", symlinks=True))
    DAMAGE[how](run.path("distil/seed-0") / "checkpoints" / "checkpoint-4" / name)
    run_recipe(recipe, run, until="distil")
    told = capsys.readouterr().out
    assert "checkpoint-4 is passed over: " in told
    assert name in told
    assert "goes on from checkpoint-3" in told
    assert _weights(run) == weights


def test_a_training_without_a_whole_checkpoint_begins_anew_and_ends_in_the_same_weights(stopped, tmp_path, capsys):
    recipe, cut, weights = stopped
    run = Run(shutil.copytree(cut, tmp_path / "run", symlinks=True))
    for number in (3, 4):
        _flip(run.path("distil/seed-0") / "checkpoints" / f"checkpoint-{number}" / "model.safetensors")
    run_recipe(recipe, run, until="distil")
    told = capsys.readouterr().out
    assert "no checkpoint is whole, so the training begins anew" in told
    assert "goes on from checkpoint" not in told
    assert _weights(run) == weights


def test_a_stopped_training_does_only_what_is_left(tmp_path, monkeypatch):
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    recipe = toy_recipe(tmp_path)
    run_recipe(recipe, whole, until="distil")
    steps, plain = [], DistilTrainer.training_step

    def training_step(self, *args):
        steps.append(self.state.global_step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(DistilTrainer, "training_step", training_step)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, cut, until="distil")
    run_recipe(recipe, cut, until="distil")
    assert steps == [0, 1, 2, 3, 2, 3, 4], "the checkpoint lies at step 2"
    one, other = (run.path("distil/seed-0") / "student" / "model.safetensors" for run in (whole, cut))
    assert one.read_bytes() == other.read_bytes()
    one, other = (
        [
            {key: value for key, value in entry.items() if not key.startswith("train_")}
            for entry in _log(run, "distil/seed-0")
        ]
        for run in (whole, cut)
    )
    assert one == other


def test_a_stop_does_not_change_which_weights_are_kept(tmp_path, monkeypatch):
    overrides = ["distil.keep=best", "corpus.validation=6", "distil.training.save_steps=1"]
    recipe = toy_recipe(tmp_path, *overrides, "distil.training.learning_rate=0.3", "distil.training.warmup_steps=0")
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    stopped_at(3, recipe, cut, monkeypatch)
    # The folder may have moved in between; what was best before the stop must be found where it is now.
    cut.folder.rename(tmp_path / "moved")
    moved = Run(tmp_path / "moved")
    run_recipe(recipe, moved, until="distil")
    one, other = (run.path("distil/seed-0") / "student" / "model.safetensors" for run in (whole, moved))
    assert one.read_bytes() == other.read_bytes()
    assert moved.manifest("distil/seed-0")["summary"] == whole.manifest("distil/seed-0")["summary"]


def test_a_stopped_adapter_comes_to_the_same_weights(tmp_path, monkeypatch):
    adapter = {"r": 2, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.2}
    student = {"start": "copy", "from": "smollm2", "adapter": adapter}
    reentrant = {"use_reentrant": True}
    recipe = toy_recipe(
        tmp_path,
        f"student={json.dumps(student)}",
        "distil.keep=best",
        "corpus.validation=6",
        "distil.training.save_steps=1",
        "distil.training.learning_rate=0.1",
        "distil.training.gradient_checkpointing=true",
        f"distil.training.gradient_checkpointing_kwargs={json.dumps(reentrant)}",
    )
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    stopped_at(3, recipe, cut, monkeypatch)
    checkpoints = list(cut.path("distil/seed-0").glob("checkpoints/checkpoint-*"))
    assert checkpoints
    assert all((folder / "adapter_model.safetensors").is_file() for folder in checkpoints)
    assert not [file for folder in checkpoints for file in folder.glob("model*")], "not the start again, each time"
    cut.folder.rename(tmp_path / "moved")
    moved = Run(tmp_path / "moved")
    run_recipe(recipe, moved, until="distil")
    one, other = (run.path("distil/seed-0") / "student" / "adapter_model.safetensors" for run in (whole, moved))
    assert one.read_bytes() == other.read_bytes()
    summary = whole.manifest("distil/seed-0")["summary"]
    assert summary == moved.manifest("distil/seed-0")["summary"]
    learned = load_file(one)
    assert all(weight.abs().max() > 0 for name, weight in learned.items() if "lora_B" in name), "all of it has learned"
    assert summary["trained_parameters"] == sum(weight.numel() for weight in learned.values())
    assert summary["parameters"] == llama().num_parameters() + summary["trained_parameters"]


def test_a_signal_that_a_launcher_repeats_is_the_same_and_a_later_one_stops_at_once(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("potstill.training.resume.time.monotonic", lambda: now[0])
    stop = StopAtStepEnd()
    with stop.listening():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.stop_requested
        assert capsys.readouterr().out.count("a checkpoint is written") == 1
        now[0] += SAME_SIGNAL + 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_of_another_strategy_is_refused_by_name(tmp_path, sharded):
    checkpoint = _checkpoint(tmp_path, 3)
    if not sharded:
        (checkpoint / "pytorch_model_fsdp.bin").write_text("weights")
    with pytest.raises(UserError, match=r"checkpoint-3 is of a training by .*`distributed\.strategy`.*or delete"):
        check_written_alike(checkpoint, sharded)
    check_written_alike(checkpoint, not sharded)
