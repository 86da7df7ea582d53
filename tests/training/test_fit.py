"""One training in a step's folder: what is kept of it, and that a stop costs nothing but time."""

import json
import shutil

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from potstill.data.random_offsets import RandomOffsets
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training.resume import last_whole_checkpoint
from potstill.training.trainer import DistilTrainer
from tiny import SEQUENCE_LENGTH, llama, toy_recipe

STEPS = 5


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


def test_a_training_that_had_ended_is_not_done_again(tmp_path, monkeypatch):
    # Stopped after the last step, while the outputs were being hashed: hours of training must not be lost.
    run, recipe = Run(tmp_path / "run"), toy_recipe(tmp_path, "control=null")
    with monkeypatch.context() as patch:
        plain = Run.finish

        def finish(self, step, *rest):
            if step.stage == "distil":
                raise KeyboardInterrupt
            plain(self, step, *rest)

        patch.setattr(Run, "finish", finish)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run)
    before = (run.path("distil/seed-0") / "student" / "model.safetensors").stat()
    monkeypatch.setattr("potstill.training.fit.DistilTrainer", None)
    run_recipe(recipe, run, until="distil")
    assert (run.path("distil/seed-0") / "student" / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert run.manifest("distil/seed-0")["summary"]["steps"] == STEPS


@torch.no_grad()
def _cross_entropy(model, rows):
    """Nats per token of sequences of one length."""
    ids = torch.tensor(rows["input_ids"])
    return model(input_ids=ids, labels=ids).loss.item()


def test_the_best_weights_are_kept_and_they_are_the_best(tmp_path):
    run, settings = Run(tmp_path / "run"), ["distil.keep=best", "corpus.validation=6", "distil.training.bf16=false"]
    # Four samples, thirty times: the held-out loss rises in the end, and the last weights are not the best.
    rising = ["corpus.train_tokens=128", "distil.training.max_steps=30", "distil.training.learning_rate=0.02"]
    run_recipe(toy_recipe(tmp_path, *settings, *rising), run, until="distil")
    summary = run.manifest("distil/seed-0")["summary"]
    assert 1 <= summary["kept_step"] < summary["steps"] == 30
    student = AutoModelForCausalLM.from_pretrained(run.path("distil") / "student").eval()
    validation = load_from_disk(run.path("corpus") / "validation")
    assert len(validation) == 6
    assert {len(ids) for ids in validation["input_ids"]} == {SEQUENCE_LENGTH}
    assert _cross_entropy(student, validation) == pytest.approx(summary["validation_loss"], rel=1e-4)
    last = Run(tmp_path / "last")
    run_recipe(toy_recipe(tmp_path, *settings, *rising, "distil.keep=last"), last, until="distil")
    ended = AutoModelForCausalLM.from_pretrained(last.path("distil") / "student").eval()
    assert _cross_entropy(student, validation) < _cross_entropy(ended, validation)


def test_a_stop_does_not_change_which_weights_are_kept(tmp_path, monkeypatch):
    overrides = ["distil.keep=best", "corpus.validation=6", "distil.training.save_steps=1"]
    recipe = toy_recipe(tmp_path, *overrides, "distil.training.learning_rate=0.3", "distil.training.warmup_steps=0")
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    _stopped_at(3, recipe, cut, monkeypatch)
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
    _stopped_at(3, recipe, cut, monkeypatch)
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


def _stopped_at(step, recipe, run, monkeypatch):
    with monkeypatch.context() as patch:
        plain = DistilTrainer.training_step

        def training_step(self, *args):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return plain(self, *args)

        patch.setattr(DistilTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run, until="distil")


def test_nothing_to_choose_from_is_refused(tmp_path):
    overrides = ["distil.keep=best", "corpus.validation=6", "distil.training.save_strategy=no"]
    with pytest.raises(UserError, match=r"`distil.training.save_strategy: no` saves nothing to choose from"):
        run_recipe(toy_recipe(tmp_path, *overrides), Run(tmp_path / "run"), until="distil")


def test_offsets_move_each_epoch_and_a_stop_does_not_change_them(tmp_path, monkeypatch):
    overrides = ["corpus.random_offset=true", "capture=null", "corpus.train_tokens=480", "distil.training.max_steps=9"]
    recipe = toy_recipe(tmp_path, *overrides)
    seen, plain = [], RandomOffsets.__getitem__

    def getitem(self, index):
        sample = plain(self, index)
        seen.append((index, tuple(sample["input_ids"])))
        return sample

    monkeypatch.setattr(RandomOffsets, "__getitem__", getitem)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    assert len({index for index, _ in seen}) == 14, "15 rows, the last of which is only the end of the one before"
    assert len(set(seen)) > 28, "three epochs saw each sample from other places"
    _stopped_at(6, recipe, cut, monkeypatch)
    run_recipe(recipe, cut, until="distil")
    one, other = (run.path("distil/seed-0") / "student" / "model.safetensors" for run in (whole, cut))
    assert one.read_bytes() == other.read_bytes()


KEPT = ["corpus.validation=6", "distil.training.max_steps=8", "distil.snapshots=4", "distil.training.save_steps=3"]


def _snapshots(run, stage="distil"):
    return {folder.name: folder for folder in (run.path(f"{stage}/seed-0") / "snapshots").iterdir()}


def test_weights_are_kept_on_the_way_and_the_training_is_what_it_was_without(tmp_path):
    run, plain = Run(tmp_path / "run"), Run(tmp_path / "plain")
    for stage in ("distil", "control"):
        run_recipe(toy_recipe(tmp_path, *KEPT), run, until=stage)
    run_recipe(toy_recipe(tmp_path, *KEPT, "distil.snapshots=null"), plain, until="distil")
    for stage in ("distil", "control"):
        found = _snapshots(run, stage)
        assert set(found) == {"step-2", "step-4", "step-6", "step-8"}
        for folder in found.values():
            AutoModelForCausalLM.from_pretrained(folder)
            assert not list(folder.rglob("training_args.bin")), "a pickle is no part of a plain folder"
        made = run.manifest(f"{stage}/seed-0")["outputs"]
        assert "snapshots/step-2/model.safetensors" in made
    assert not list(run.path("distil/seed-0").rglob(".*")), "nothing half-written is left"
    student, last = (run.path("distil/seed-0") / name / "model.safetensors" for name in ("student", "snapshots/step-8"))
    assert student.read_bytes() == last.read_bytes()
    assert student.read_bytes() == (plain.path("distil/seed-0") / "student" / "model.safetensors").read_bytes()
    weights = [(folder / "model.safetensors").read_bytes() for folder in _snapshots(run).values()]
    assert len(set(weights)) == 4


def test_snapshots_that_the_disk_has_no_room_for_are_refused_before_a_step_is_done(tmp_path, monkeypatch, capsys):
    recipe, whole, run = toy_recipe(tmp_path, *KEPT, "capture=null"), Run(tmp_path / "whole"), Run(tmp_path / "run")
    run_recipe(recipe, whole, until="distil")
    kept = [folder / "model.safetensors" for folder in _snapshots(whole).values()]
    assert "keeps 4 snapshots of " in capsys.readouterr().out
    run_recipe(recipe, run, until="student")
    usage, need = shutil.disk_usage(tmp_path), sum(file.stat().st_size for file in kept)
    # A safetensors file is its weights, and a header that says which they are.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(0.8 * need)))
    with pytest.raises(UserError, match=r"GB left: make room, or keep fewer of `distil\.snapshots`"):
        run_recipe(recipe, run, until="distil")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=need))
    run_recipe(recipe, run, until="distil")
    assert set(_snapshots(run)) == set(_snapshots(whole))


@pytest.mark.parametrize("step", [3, 5])
def test_a_stop_does_not_change_what_is_kept(tmp_path, monkeypatch, step):
    # Stopped at 5, after the checkpoint of 3 and the snapshot of 4: it comes by 4 again.
    recipe = toy_recipe(tmp_path, *KEPT)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    _stopped_at(step, recipe, cut, monkeypatch)
    early = set(_snapshots(cut))
    assert early == ({"step-2"} if step == 3 else {"step-2", "step-4"})
    run_recipe(recipe, cut, until="distil")
    one, other = _snapshots(whole), _snapshots(cut)
    assert set(one) == set(other)
    for name, folder in one.items():
        assert (folder / "model.safetensors").read_bytes() == (other[name] / "model.safetensors").read_bytes()
