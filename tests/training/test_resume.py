"""Resume: a stopped training goes on from its last whole checkpoint, to the same weights."""

import json

import pytest
from safetensors.torch import load_file

from interrupt import stopped_at
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training.resume import last_whole_checkpoint
from potstill.training.trainer import DistilTrainer
from tiny import llama, toy_recipe


def _log(run, step):
    return [json.loads(line) for line in (run.path(step) / "log.jsonl").read_text().splitlines()]


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    for number, content in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (12, '{"global_st'), (14, None)):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if content is not None:
            (folder / "trainer_state.json").write_text(content)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert last_whole_checkpoint(tmp_path / "none") is None


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
