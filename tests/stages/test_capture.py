import json
from itertools import pairwise

import pytest
import torch
from datasets import load_from_disk

from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from potstill.targets.content_keys import batch_keys
from potstill.teachers.prepared import PreparedTeacher
from tiny import llama, save_model, toy_recipe


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}


def test_every_sample_is_captured(run):
    teacher = PreparedTeacher.load(run.path("teachers") / "smollm2")
    store = TargetStore(run.path("capture") / "smollm2", expect=teacher.provenance())
    samples = load_from_disk(run.path("corpus") / "train")
    assert len(store) == len(samples)
    assert list(store.verify())[-1] == len(samples)
    batch = Collator(0)([samples[5], samples[3]])
    target = store.read(batch_keys(batch))
    with torch.no_grad():
        wanted = llama(0)(input_ids=batch["input_ids"]).logits[:, :-1].flatten(0, 1).log_softmax(-1)
    assert (target.log_probs - wanted.gather(1, target.ids.long())).abs().max() < 0.1, "8 bits of a log-probability"
    whole = target.log_probs.exp().sum(-1) + target.log_tail.exp()
    torch.testing.assert_close(whole, torch.ones_like(whole))


def test_bytes_on_disk_are_what_was_promised(run, recipe):
    summary = run.manifest("capture")["summary"]["smollm2"]
    records = sum(file.stat().st_size for file in (run.path("capture") / "smollm2").glob("*") if "records" in file.name)
    promised = summary["tokens"] * summary["bytes_per_token"]
    assert 0.8 * promised < records <= promised


@pytest.mark.parametrize("keep", ["top_k", "sample", "hybrid", "hidden"])
def test_everything_that_can_be_kept_teaches(tmp_path, keep):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, f"capture.keep={keep}"), run, until="distil")
    points = [json.loads(line) for line in (run.path("distil/seed-0") / "log.jsonl").read_text().splitlines()]
    assert all(0 < point["forward_kl"] < 20 for point in points)


def test_hidden_states_are_kept_as_the_teacher_computes_them(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "capture.keep=hidden"), run, until="capture")
    store = TargetStore(run.path("capture") / "smollm2", expect=None)
    samples = load_from_disk(run.path("corpus") / "train")
    batch = Collator(0)([samples[0]])
    target = store.read(batch_keys(batch))
    with torch.no_grad():
        wanted = llama(0).model(batch["input_ids"]).last_hidden_state[0, :-1]
    torch.testing.assert_close(target.hidden, wanted, rtol=0, atol=1e-6)


def test_a_stopped_capture_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    recipe = toy_recipe(tmp_path)
    run_recipe(recipe, whole, until="capture")
    calls = _stopping_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, cut, until="capture")
    stopped_at = len(calls)
    run_recipe(recipe, cut, until="capture")
    # What was written is not asked of the teacher again: at most the batch that was lost.
    batches = -(-whole.manifest("corpus")["summary"]["train_samples"] // recipe.capture.batch_size)
    assert len(calls) - stopped_at < batches
    assert _bytes(cut.path("capture") / "smollm2") == _bytes(whole.path("capture") / "smollm2")
    assert cut.manifest("capture")["attempts"] == 2


def _stopping_after(batches, monkeypatch):
    """Stop a capture in that batch, as Ctrl-C does. Returns the list of calls, which grows."""
    from potstill.teachers.live import LiveTeacher

    calls, plain = [], LiveTeacher.target

    def target(self, batch):
        calls.append(batch)
        if len(calls) == batches:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(LiveTeacher, "target", target)
    return calls


def test_a_second_temperature_is_refused_before_anything_is_captured(tmp_path):
    losses = [{"kind": "forward_kl", "temperature": 1.0}, {"kind": "reverse_kl", "temperature": 2.0}]
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"`capture.keep: top_k`.*\[1.0, 2.0\]"):
        run_recipe(toy_recipe(tmp_path, f"distil.losses={json.dumps(losses)}"), run, until="capture")
    assert not (run.path("capture") / "smollm2").exists()


def test_two_teachers_have_a_store_each(tmp_path):
    first = toy_recipe(tmp_path).teachers["smollm2"].model
    other = save_model(llama(7), tmp_path / "other")
    both = json.dumps({"smollm2": {"model": first}, "other": {"model": str(other), "weight": 3.0}})
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, f"teachers={both}"), run)
    stores = [TargetStore(run.path("capture") / name, expect=None).header for name in ("smollm2", "other")]
    assert all(one.provenance != other.provenance for one, other in pairwise(stores))
    line = json.loads((run.path("distil/seed-0") / "log.jsonl").read_text().splitlines()[0])
    parts = 0.25 * line["forward_kl/teacher0"] + 0.75 * line["forward_kl/teacher1"]
    assert line["forward_kl"] == pytest.approx(parts, rel=1e-4)
