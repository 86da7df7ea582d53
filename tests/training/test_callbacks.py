"""Callbacks: hashes, snapshots and random offsets, with and without a stop."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from interrupt import stopped_at
from potstill.data.random_offsets import RandomOffsets
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training import callbacks
from potstill.training.hidden_matching import PROJECTORS
from potstill.training.trainer import DistilTrainer
from tiny import toy_recipe


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
    stopped_at(6, recipe, cut, monkeypatch)
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
    # The plan of a run would refuse it before.
    monkeypatch.setattr("potstill.pipeline.forecast.refuse_what_cannot_fit", lambda plan, run: None)
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
    stopped_at(step, recipe, cut, monkeypatch)
    early = set(_snapshots(cut))
    assert early == ({"step-2"} if step == 3 else {"step-2", "step-4"})
    run_recipe(recipe, cut, until="distil")
    one, other = _snapshots(whole), _snapshots(cut)
    assert set(one) == set(other)
    for name, folder in one.items():
        assert (folder / "model.safetensors").read_bytes() == (other[name] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("how", [lambda content: bytes([*content[:-1], content[-1] ^ 1]), lambda content: content[:-1]])
def test_a_snapshot_that_was_damaged_during_a_stop_is_made_again(tmp_path, monkeypatch, capsys, how):
    recipe = toy_recipe(tmp_path, *KEPT)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    run_recipe(recipe, whole, until="distil")
    stopped_at(7, recipe, cut, monkeypatch)
    damaged = _snapshots(cut)["step-4"] / "model.safetensors"
    damaged.write_bytes(how(damaged.read_bytes()))
    run_recipe(recipe, cut, until="distil")
    told = capsys.readouterr().out
    assert "checkpoint-6 is passed over: the snapshot step-4 comes before it, and its file model.safetensors" in told
    assert "goes on from checkpoint-3" in told
    one, other = _snapshots(whole), _snapshots(cut)
    for name, folder in one.items():
        assert (folder / "model.safetensors").read_bytes() == (other[name] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_older_checkpoints_are_deleted_when_the_new_one_has_its_hashes(tmp_path, monkeypatch, limit):
    recipe = toy_recipe(tmp_path, "distil.training.save_steps=1", f"distil.training.save_total_limit={limit}")
    run = Run(tmp_path / "run")
    there, plain = [], callbacks.write_hashes

    def write(checkpoint):
        there.append(len(list(checkpoint.parent.iterdir())))
        plain(checkpoint)

    monkeypatch.setattr(callbacks, "write_hashes", write)
    stopped_at(4, recipe, run, monkeypatch)
    assert there == [min(step, limit + 1) for step in (1, 2, 3, 4)], (
        "the one before is there until the new one is whole"
    )
    assert len(list(run.path("distil/seed-0").glob("checkpoints/*"))) == limit


def test_a_projection_between_layers_is_hashed_too(tmp_path, monkeypatch):
    losses = [{"kind": "forward_kl"}, {"kind": "hidden_match"}]
    narrow = {"start": "prune_width", "from": "smollm2", "hidden_size": 16, "importance_samples": 8}
    given = [f"distil.losses={json.dumps(losses)}", "capture=null", f"student={json.dumps(narrow)}"]
    recipe = toy_recipe(tmp_path, *given, "distil.training.save_steps=1")
    run = Run(tmp_path / "run")
    stopped_at(2, recipe, run, monkeypatch)
    checkpoint = run.path("distil/seed-0") / "checkpoints" / "checkpoint-2"
    hashes = json.loads((checkpoint / "hashes.json").read_text())
    assert PROJECTORS in hashes["files"]


def test_best_weights_that_were_damaged_during_the_training_are_not_kept(tmp_path, monkeypatch):
    rising = ["corpus.train_tokens=128", "distil.training.max_steps=30", "distil.training.learning_rate=0.02"]
    settings = ["distil.keep=best", "corpus.validation=6", "distil.training.save_steps=1", *rising]
    recipe = toy_recipe(tmp_path, *settings)
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    run_recipe(recipe, whole, until="distil")
    summary = whole.manifest("distil/seed-0")["summary"]
    assert summary["kept_step"] < summary["steps"], "the best weights are not the last ones"
    plain = DistilTrainer.training_step

    def training_step(self, *args):
        if self.state.global_step == summary["steps"] - 1:
            weights = Path(self.state.best_model_checkpoint) / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[::-1])
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DistilTrainer, "training_step", training_step)
        with pytest.raises(UserError, match=r"best weights .*checkpoint-\d+, and its file model.safetensors is not"):
            run_recipe(recipe, run, until="distil")
    assert run.manifest("distil/seed-0") is None
    run_recipe(recipe, run, until="distil")
    one, other = (run.path("distil/seed-0") / "student" / "model.safetensors" for run in (whole, run))
    assert one.read_bytes() == other.read_bytes()
    assert run.manifest("distil/seed-0")["summary"] == summary
