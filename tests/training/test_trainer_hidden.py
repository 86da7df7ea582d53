"""hidden_match at the trainer: the step of the formula for any micro-batches, and projectors outside the student."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import mse_loss
from transformers import AutoModelForCausalLM

from potstill import HiddenLoss, Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.students.prune_layers import prune_layers
from potstill.training.hidden_matching import PROJECTORS
from tiny import gpt2, llama
from toy_training import Killed, assert_equal, captured, samples, sums_by_hand, trained, trainer, weights

ALONE = [HiddenLoss(weight=0.6)]
WITH_KL = [Loss("forward_kl", weight=0.4), HiddenLoss(weight=0.6), Loss("cross_entropy", weight=0.1)]
WIDER = {"hidden_size": 48}


def matched(folder, student=None, **given):
    """Weights after training, with those of the projectors."""
    one = trainer(folder, student, **given)
    one.train()
    return {**weights(one.model), **weights(one._matching)}


def distances(student, teacher, rows, pairs, project=lambda layer, states: states):
    """Sums over supervised tokens of mean squared differences, each sample read alone; and the number of tokens."""
    total, tokens = torch.tensor(0.0), 0
    for row in rows:
        ids, taught = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:] != IGNORE_INDEX
        ours, theirs = (one(ids, output_hidden_states=True).hidden_states[1:] for one in (student, teacher))
        for mine, other in pairs:
            states = project(mine, ours[mine][0, :-1][taught])
            target = theirs[other][0, :-1][taught].detach()
            total = total + mse_loss(states, target, reduction="sum") / target.shape[1] / len(pairs)
        tokens += int(taught.sum())
    return total, tokens


def assert_moved_by(gradients, before, after):
    for name, gradient in gradients.items():
        torch.testing.assert_close((before[name] - after[name]) / 0.5, gradient, rtol=1e-4, atol=3e-6, msg=name)


@pytest.mark.parametrize("wider", [{}, WIDER], ids=["same-size", "projected"])
def test_a_step_is_the_formula_s_own(tmp_path, wider):
    rows, teacher, student = samples(), llama(**wider), llama(seed=1, layers=2)
    one = trainer(tmp_path, student, teacher=copy.deepcopy(teacher), losses=WITH_KL, train_dataset=rows, max_steps=1)
    twin, projectors = copy.deepcopy(student), copy.deepcopy(one._matching)
    before = {**weights(student), **weights(one._matching)}
    own = list(projectors.parameters())
    assert len(own) == (2 if wider else 0)
    one.train()
    matched, tokens = distances(
        twin, teacher, rows, [(0, 1), (1, 3)], lambda layer, states: states @ own[layer].T if own else states
    )
    sums, _ = sums_by_hand(twin, teacher, rows)
    ((0.4 * sums["forward_kl"] + 0.1 * sums["cross_entropy"] + 0.6 * matched) / tokens).backward()
    gradients = {name: weight.grad for each in (twin, projectors) for name, weight in each.named_parameters()}
    assert_moved_by(gradients, before, {**weights(one.model), **weights(one._matching)})
    assert one.state.log_history[0]["hidden_match"] == pytest.approx(matched.item() / tokens, rel=1e-5)
    assert set(one.state.log_history[0]) >= {"forward_kl", "cross_entropy", "hidden_match"}


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_a_student_comes_closer_to_its_teacher(tmp_path, distance):
    teacher, unseen = llama(), samples(32, seed=99)
    student = prune_layers(copy.deepcopy(teacher), [0, 3])
    learning = {"optim": "adamw_torch", "learning_rate": 3e-3, "max_steps": 60, "train_dataset": samples(256, seed=5)}
    pairs = [(0, 1), (1, 3)]

    def far():
        # Measured by hand, and on what it never saw: its layers, and what comes of them.
        states, _ = distances(student, teacher, unseen, pairs)
        return states.item(), sums_by_hand(student, teacher, unseen)[0]["forward_kl"].item()

    before = far()
    trained(tmp_path, student, teacher=teacher, losses=[HiddenLoss(distance=distance)], **learning)
    assert all(after < 0.9 * start for after, start in zip(far(), before, strict=True)), (before, far())


def test_projectors_learn_too(tmp_path):
    one = trainer(tmp_path, teacher=llama(**WIDER), losses=ALONE, max_steps=3)
    before = weights(one._matching)
    one.train()
    assert all(not torch.equal(weight, before[name]) for name, weight in weights(one._matching).items())


def test_each_step_has_its_own_gradient(tmp_path):
    rows, teaching = samples(16), {"teacher": llama(**WIDER), "losses": ALONE}
    expected = matched(tmp_path, train_dataset=rows, max_steps=2, **teaching)
    first = trainer(tmp_path, train_dataset=rows[:8], max_steps=1, **teaching)
    first.train()
    second = trainer(tmp_path, first.model, train_dataset=rows[8:], max_steps=1, **teaching)
    second._matching.load_state_dict(first._matching.state_dict())
    second.train()
    assert_equal({**weights(second.model), **weights(second._matching)}, expected)


@pytest.mark.parametrize("losses", [ALONE, WITH_KL], ids=["alone", "with-kl"])
@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (1, 8)])
def test_accumulation_is_one_large_batch(tmp_path, losses, batch, accumulation):
    rows, teaching = samples(18, seed=3), {"teacher": llama(**WIDER), "losses": losses, "max_steps": 3}
    whole = matched(tmp_path, train_dataset=rows, per_device_train_batch_size=8, **teaching)
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    assert_equal(matched(tmp_path, train_dataset=rows, **teaching, **cut), whole, tolerance=2e-6)


def test_a_micro_batch_without_supervised_tokens_changes_nothing(tmp_path):
    rows, teaching = samples(6), {"teacher": llama(**WIDER), "losses": ALONE, "max_steps": 1}
    silent = [{"input_ids": row["input_ids"], "labels": [IGNORE_INDEX] * len(row["input_ids"])} for row in rows[:2]]
    expected = matched(tmp_path, train_dataset=rows, per_device_train_batch_size=6, **teaching)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    found = matched(tmp_path, train_dataset=[*rows[:2], *silent, *rows[2:]], **teaching, **cut)
    assert_equal(found, expected, tolerance=2e-6)


def test_checkpointed_activations_change_nothing(tmp_path):
    teaching = {"teacher": llama(**WIDER), "losses": WITH_KL}
    plain = matched(tmp_path, **teaching)
    for reentrant in (False, True):
        kept = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
        assert_equal(matched(tmp_path, **teaching, **kept), plain, tolerance=1e-6)


def test_the_student_and_its_random_numbers_are_as_without_a_weight(tmp_path):
    # Dropout draws in every step; what is drawn for projectors must not move it.
    def student():
        return gpt2(seed=1, layers=2)

    teaching = {"teacher": llama(**WIDER), "train_dataset": samples(10)}
    expected = trained(tmp_path, student(), losses=[Loss("forward_kl")], **teaching)
    found = trained(tmp_path, student(), losses=[Loss("forward_kl"), HiddenLoss(weight=0.0)], **teaching)
    assert_equal(found, expected, tolerance=1e-7)


def test_several_teachers_count_by_their_weights(tmp_path):
    teachers, rows = [llama(), llama(seed=2, layers=3)], samples()
    teaching = {"teacher": copy.deepcopy(teachers), "teacher_weights": [1.0, 3.0], "losses": ALONE}
    one = trainer(tmp_path, train_dataset=rows, learning_rate=0.0, max_steps=1, **teaching)
    one.train()
    logged, pairs = one.state.log_history[0], [[(0, 1), (1, 3)], [(0, 0), (1, 2)]]
    for place, teacher in enumerate(teachers):
        total, tokens = distances(llama(seed=1, layers=2), teacher, rows, pairs[place])
        assert logged[f"hidden_match/teacher{place}"] == pytest.approx(total.item() / tokens, rel=1e-5)
    mean = 0.25 * logged["hidden_match/teacher0"] + 0.75 * logged["hidden_match/teacher1"]
    assert logged["hidden_match"] == pytest.approx(mean, rel=1e-5)
    assert logged["loss"] == pytest.approx(0.6 * mean, rel=1e-4)


def test_two_of_a_kind_are_logged_apart(tmp_path):
    both = [HiddenLoss(layers=[(0, 0)]), HiddenLoss(weight=0.5, distance="cosine", layers=[(1, 3)])]
    one = trainer(tmp_path, teacher=llama(), losses=both, max_steps=1)
    one.train()
    logged = one.state.log_history[0]
    assert logged["loss"] == pytest.approx(logged["hidden_match"] + 0.5 * logged["hidden_match_2"], rel=1e-4)


LEARNING = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_grad_norm": 1.0, "weight_decay": 0.1}
SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "train_sampling_strategy": "random"}


@pytest.mark.parametrize(
    "given",
    [{}, {"bf16": True}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}],
    ids=["plain", "bf16", "accumulated"],
)
def test_a_killed_training_continues_to_the_same_weights(tmp_path, given):
    both = {"teacher": llama(**WIDER), "losses": WITH_KL, "train_dataset": samples(10, seed=4)}
    both |= {"per_device_train_batch_size": 4, **LEARNING, **SAVING, **given}
    whole = trainer(tmp_path / "whole", gpt2(seed=1, layers=2), **both)
    whole.train()
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "cut", gpt2(seed=1, layers=2), callbacks=[Killed()], **both).train()
    again = trainer(tmp_path / "cut", gpt2(seed=77, layers=2), **both)
    with torch.no_grad():
        for projector in again._matching.parameters():
            projector.fill_(7.0)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    assert_equal(weights(again._matching), weights(whole._matching))
    assert [entry.get("hidden_match") for entry in again.state.log_history] == [
        entry.get("hidden_match") for entry in whole.state.log_history
    ]


def test_a_student_is_saved_without_projectors(tmp_path):
    one = trainer(tmp_path, teacher=llama(**WIDER), losses=ALONE, **SAVING)
    one.train()
    one.save_model(str(tmp_path / "student"))
    one.model.save_pretrained(tmp_path / "own")
    names = set(llama(seed=1, layers=2).state_dict())
    for folder in ("student", "own", "checkpoint-6"):
        assert set(load_file(tmp_path / folder / "model.safetensors")) == names
    assert not (tmp_path / "student" / PROJECTORS).exists()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").num_parameters() == one.model.num_parameters()
    checkpoint = tmp_path / "checkpoint-6"
    assert_equal(load_file(checkpoint / PROJECTORS), weights(one._matching))
    newest = max(checkpoint.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert newest.name == "trainer_state.json", "a folder that has the state has everything"


def test_a_checkpoint_of_other_projectors_is_refused(tmp_path):
    both = {"teacher": llama(**WIDER), **SAVING}
    trainer(tmp_path, losses=[HiddenLoss(layers=[(0, 0)]), Loss("forward_kl")], **both).train()
    (tmp_path / "checkpoint-6" / PROJECTORS).unlink()
    again = trainer(tmp_path, losses=[HiddenLoss(layers=[(0, 0)]), Loss("forward_kl")], **both)
    with pytest.raises(UserError, match="does not hold the projectors of these hidden_match losses"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_a_lora_student_and_its_projectors_learn(tmp_path):
    peft = pytest.importorskip("peft")
    student = peft.get_peft_model(llama(seed=1, layers=2), peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    before = weights(student)
    found = matched(tmp_path, student, teacher=llama(**WIDER), losses=ALONE)
    moved = {name for name in before if not torch.equal(found[name], before[name])}
    assert moved
    assert all("lora" in name for name in moved)


def test_layers_must_be_at_hand(tmp_path):
    rows = samples(4)
    store = captured(tmp_path / "store", llama(), rows)
    with pytest.raises(UserError, match=r"hidden_match needs the teacher's layers, and .*store keeps none"):
        trainer(tmp_path, teacher=store, losses=ALONE, train_dataset=rows)
    with pytest.raises(UserError, match=r"keeps none"):
        trainer(tmp_path, teacher=[llama(), store], losses=ALONE, train_dataset=rows)
    with pytest.raises(UserError, match="hidden_match needs a teacher"):
        trainer(tmp_path, losses=ALONE)
    with pytest.raises(UserError, match="pair 2, 0, but the student has 2 layers and the teacher 4"):
        trainer(tmp_path, teacher=llama(), losses=[HiddenLoss(layers=[(2, 0)])])
    with pytest.raises(UserError, match="student of 2 layers cannot be mapped onto a teacher of 1"):
        trainer(tmp_path, teacher=llama(layers=1), losses=ALONE)
