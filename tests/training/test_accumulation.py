"""Accumulation over thousands of micro-batches: the right denominator, and memory that does not grow."""

import copy
import gc

import pytest
import torch

from potstill.data.labels import IGNORE_INDEX, count_supervised
from potstill.training.accumulation import MicroBatches, OptimizerStep, only_one
from tiny import gpt_neox, llama
from toy_training import assert_equal, captured, samples, trained, trainer, weights


def test_micro_batches_are_read_one_by_one_and_the_first_at_once():
    read = []

    def loader():
        for number in range(10):
            read.append(number)
            yield {"input_ids": number}

    source = loader()
    batches = MicroBatches(source, 3)
    assert read == [0]
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        assert len(batches) == 3
        assert batch == {"input_ids": number}
        assert read == list(range(number + 1))
    # What belongs to the next step has not been touched.
    assert next(source) == {"input_ids": 3}


def test_a_loader_that_ends_early_ends_the_step():
    assert list(MicroBatches(iter(["one", "two"]), 3)) == ["one", "two"]
    assert len(MicroBatches(iter([]), 3)) == 0
    assert list(MicroBatches(iter([]), 3)) == []


@pytest.mark.parametrize("expected", [1, 7, 1000, 4096 * 2048])
def test_the_divisor_is_a_power_of_two_which_rounds_nothing(expected):
    mantissa, _ = torch.frexp(OptimizerStep(expected, torch.device("cpu")).divisor)
    assert mantissa == 0.5


def test_only_a_micro_batch_that_has_no_other_is_told_before_it_is_read():
    batches = MicroBatches(iter(["one", "two"]), 1)
    assert only_one(batches) == ["one"]
    assert list(batches) == ["one"]
    assert only_one(MicroBatches(iter(["one", "two"]), 2)) == []
    assert only_one(MicroBatches(iter([]), 1)) == []
    assert only_one(["one"]) == ["one"]
    assert only_one(["one", "two"]) == []


def test_all_gradients_of_a_step_are_scaled_in_one_call(monkeypatch):
    calls = []
    plain = torch._foreach_mul_
    monkeypatch.setattr(torch, "_foreach_mul_", lambda tensors, factor: calls.append(tensors) or plain(tensors, factor))
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(5)))
    for weight in layers.parameters():
        weight.grad = torch.full_like(weight, 4.0)
    step = OptimizerStep(8, torch.device("cpu"))
    step.add([{"input_ids": torch.ones(1, 5), "labels": torch.tensor([[0, 1, 1, 1, 1]])}], torch.tensor(0.5))
    step.finish(step.tokens, [layers])
    assert [len(tensors) for tensors in calls] == [10]
    # The divisor was 8, and there are 4 tokens.
    assert all((weight.grad == 8).all() for weight in layers.parameters())


def test_a_known_number_of_tokens_leaves_the_gradient_alone():
    weight = torch.nn.Linear(2, 2)
    weight.weight.grad = torch.full((2, 2), 0.1)
    step = OptimizerStep(8, torch.device("cpu"))
    step.divide_by(torch.tensor(3))
    assert step.divisor == 3
    step.add([{"input_ids": torch.ones(1, 4), "labels": torch.tensor([[0, 1, 1, 1]])}], torch.tensor(0.5))
    assert step.finish(step.tokens, [weight]) == 0.5
    assert torch.equal(weight.weight.grad, torch.full((2, 2), 0.1))


@pytest.mark.parametrize(("accumulation", "exact"), [(1, True), (2, False)])
def test_a_step_of_one_micro_batch_divides_by_its_own_tokens(tmp_path, accumulation, exact):
    rows = samples(8, seed=21)
    cut = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    one = trainer(tmp_path, teacher=llama(), train_dataset=rows, **cut)
    batches, divisor = one.get_batch_samples(iter(one.get_train_dataloader()), accumulation, torch.device("cpu"))
    tokens = sum(count_supervised(batch) for batch in batches)
    assert (divisor == tokens) == exact


def test_a_step_without_supervised_tokens_is_no_division_by_zero():
    step = OptimizerStep(8, torch.device("cpu"))
    step.add([{"input_ids": torch.ones(1, 3), "labels": torch.full((1, 3), IGNORE_INDEX)}], torch.tensor(0.0))
    assert step.finish(step.tokens, []) == 0


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 64), (2, 32), (16, 4)])
def test_many_micro_batches_are_one_large_batch(tmp_path, batch, accumulation):
    # Samples of 1 to 20 supervised tokens: neither a mean of means nor an expected number of tokens would do.
    rows = samples(64, seed=13)
    whole = trained(tmp_path, teacher=llama(), train_dataset=rows, per_device_train_batch_size=64, max_steps=1)
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    assert_equal(trained(tmp_path, teacher=llama(), train_dataset=rows, **cut), whole, tolerance=2e-6)


def test_clipping_sees_the_gradient_of_the_whole_step(tmp_path):
    rows = samples(32, seed=14)
    clipped = {"teacher": llama(), "train_dataset": rows, "max_steps": 1, "max_grad_norm": 0.01}
    whole = trained(tmp_path, per_device_train_batch_size=32, **copy.deepcopy(clipped))
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 32}
    assert_equal(trained(tmp_path, **cut, **clipped), whole, tolerance=1e-7)


def test_the_logged_loss_is_the_mean_over_the_tokens_of_the_step(tmp_path):
    rows = samples(32, seed=15)
    logged = []
    for batch in (32, 1):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 32 // batch, "max_steps": 1}
        one = trainer(tmp_path, teacher=llama(), train_dataset=rows, **cut)
        one.train()
        logged.append(one.state.log_history[0])
    for name in ("loss", "forward_kl", "cross_entropy", "grad_norm"):
        assert logged[1][name] == pytest.approx(logged[0][name], rel=1e-4), name


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_schedule_counts_steps_and_not_micro_batches(tmp_path, schedule):
    rows = samples(64, seed=16)
    given = {"lr_scheduler_type": schedule, "train_dataset": rows, "max_steps": 4}
    whole = trained(tmp_path, teacher=llama(), per_device_train_batch_size=16, **given)
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}
    assert_equal(trained(tmp_path, teacher=llama(), **cut, **given), whole, tolerance=5e-6)


def _pythia(folder, **given):
    """A small step like DistilPythia's: both models in bf16, activations recomputed in the backward."""
    teacher, student = gpt_neox().to(torch.bfloat16), gpt_neox(seed=1, layers=2)
    return trainer(folder, student, teacher=teacher, bf16=True, gradient_checkpointing=True, **given)


def test_bf16_and_checkpointed_activations_accumulate_to_one_large_batch(tmp_path):
    rows, before = samples(32, seed=17), weights(gpt_neox(seed=1, layers=2))
    moved = []
    for batch in (32, 2):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 32 // batch, "max_steps": 1}
        one = _pythia(tmp_path, train_dataset=rows, **cut)
        one.train()
        after = weights(one.model)
        assert {weight.dtype for weight in after.values()} == {torch.float32}
        moved.append(torch.cat([(after[name] - before[name]).flatten() for name in before]))
    assert (moved[0] - moved[1]).norm() < 0.01 * moved[0].norm()


def _live_bytes():
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # Subclasses such as FakeTensor, which torch.compile leaves behind in this process, hold no memory.
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("source", ["live", "captured"])
def test_memory_is_flat_in_the_number_of_micro_batches(tmp_path, source):
    rows = samples(16, seed=18)
    # One layer: it is the number of micro-batches that counts, and there are many.
    teacher = llama(layers=1)
    if source == "captured":
        teacher = captured(tmp_path / "store", teacher, rows)
    most = {}
    for micro_batches in (16, 512):
        cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": micro_batches, "max_steps": 1}
        student = llama(seed=1, layers=1)
        one = trainer(tmp_path, student, teacher=teacher, train_dataset=rows * (micro_batches // 8), **cut)
        seen, step = [], one.training_step

        def measured(*args, seen=seen, step=step, every=micro_batches // 8):
            # In the middle of the step, where everything that will be read and was read might lie about.
            if len(seen) % every == every // 2:
                seen.append(_live_bytes())
            else:
                seen.append(0)
            return step(*args)

        one.training_step = measured
        one.train()
        assert len(seen) == micro_batches
        most[micro_batches] = max(seen)
    # Batches are of different lengths; 496 more of them would be more than a hundred of the largest.
    largest = 2 * 24 * (3 * 8 + 300 * 8)
    assert most[512] < most[16] + 4 * largest
