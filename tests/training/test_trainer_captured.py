"""Captured targets and ensembles: the trainer makes the same student as from live teachers."""

import copy

import pytest
import torch

from potstill import Loss, TargetStore
from potstill.data.labels import IGNORE_INDEX
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.targets import Provenance, make_codec
from tiny import VOCABULARY, gpt2, llama, tokenizer
from toy_training import assert_equal, captured, left_padded, samples, shuffled, sums_by_hand, trained, trainer, weights


@pytest.fixture
def rows():
    return samples(16, seed=8)


def test_everything_captured_is_the_teacher_itself(tmp_path, rows):
    # In float32 a log-probability is good to 1e-7, and two steps of SGD are what it grows in.
    online = trained(tmp_path, teacher=llama(), train_dataset=rows)
    store = captured(tmp_path / "store", llama(), rows)
    assert_equal(trained(tmp_path, teacher=store, train_dataset=rows), online, tolerance=2e-6)


def test_hidden_states_captured_are_the_teacher_itself(tmp_path, rows):
    online = trained(tmp_path, teacher=llama(), train_dataset=rows)
    codec = make_codec("hidden", vocabulary=VOCABULARY, hidden_size=32, bits=32)
    store = captured(tmp_path / "store", llama(), rows, codec=codec)
    assert_equal(trained(tmp_path, teacher=store, train_dataset=rows), online, tolerance=2e-6)


def test_a_teacher_is_the_same_captured_or_not_under_bfloat16(tmp_path, rows):
    # Autocast is the student's: it must not round a float32 teacher that happens to run within it. A capture reads the
    # longest rows first. In the training's order, the teacher reads the same batches both times. The last bits of
    # another batch's product would count for more in bfloat16.
    rows = sorted(rows, key=lambda row: -len(row["input_ids"]))
    losses, codec = [Loss("forward_kl")], make_codec("hidden", vocabulary=VOCABULARY, hidden_size=32, bits=32)
    store = captured(tmp_path / "store", llama(), rows, codec=codec)
    online = trained(tmp_path, teacher=llama(), train_dataset=rows, losses=losses, bf16=True)
    assert_equal(trained(tmp_path, teacher=store, train_dataset=rows, losses=losses, bf16=True), online, tolerance=1e-5)


def test_targets_are_found_by_content(tmp_path, rows):
    # Captured in one order, at one batch size and padding; read in another, over two epochs.
    store = captured(tmp_path / "store", llama(), shuffled(rows, 1))
    cut = {"train_dataset": shuffled(rows, 2), "max_steps": 8, "per_device_train_batch_size": 5}
    random = {"train_sampling_strategy": "random", "seed": 3}
    online = trained(tmp_path, teacher=llama(), **cut, **random)
    assert_equal(trained(tmp_path, teacher=store, **cut, **random), online, tolerance=1e-5)


def test_targets_fit_whichever_side_is_padded(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    right = trained(tmp_path, teacher=store, train_dataset=rows)
    for teacher in (store, llama()):
        left = trained(tmp_path, teacher=teacher, train_dataset=rows, data_collator=left_padded)
        assert_equal(left, right, tolerance=1e-5)


def test_targets_are_read_by_workers_too(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    alone = trained(tmp_path, teacher=store, train_dataset=rows)
    assert_equal(trained(tmp_path, teacher=store, train_dataset=rows, dataloader_num_workers=2), alone)


def test_a_store_may_be_given_by_its_folder(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    expected = trained(tmp_path, teacher=store, train_dataset=rows)
    assert_equal(trained(tmp_path, teacher=str(tmp_path / "store"), train_dataset=rows), expected)


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_an_ensemble_is_the_formula_s_own(tmp_path, rows, mix, temperature):
    teachers, student = [llama(), llama(seed=2, layers=3)], llama(seed=1, layers=2)
    before = weights(student)
    one_by_one = {"losses": [Loss("reverse_kl", temperature=temperature)], "mix": mix, "teacher_weights": [3.0, 1.0]}
    after = trained(tmp_path, teacher=copy.deepcopy(teachers), train_dataset=rows[:8], max_steps=1, **one_by_one)
    total, tokens = torch.tensor(0.0), 0
    for row in rows[:8]:
        ids, taught = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:] != IGNORE_INDEX
        ours, *theirs = (model(input_ids=ids).logits[0, :-1][taught] / temperature for model in (student, *teachers))
        if mix == "logits":
            mixture = (0.75 * theirs[0] + 0.25 * theirs[1]).log_softmax(-1)
        else:
            mixture = (0.75 * theirs[0].softmax(-1) + 0.25 * theirs[1].softmax(-1)).log()
        ours = ours.log_softmax(-1)
        total = total + temperature**2 * (ours.exp() * (ours - mixture.detach())).sum()
        tokens += int(taught.sum())
    (total / tokens).backward()
    for name, weight in student.named_parameters():
        torch.testing.assert_close((before[name] - after[name]) / 0.5, weight.grad, rtol=1e-4, atol=3e-6)


def test_a_captured_ensemble_is_the_one_that_runs(tmp_path, rows):
    teachers = [llama(), llama(seed=2, layers=3)]
    shares = {"teacher_weights": [0.2, 0.8], "train_dataset": rows}
    online = trained(tmp_path, teacher=teachers, **shares)
    stores = [captured(tmp_path / f"store-{n}", one, rows, revision=str(n)) for n, one in enumerate(teachers)]
    assert_equal(trained(tmp_path, teacher=stores, **shares), online, tolerance=2e-6)
    half_and_half = trained(tmp_path, teacher=[stores[0], teachers[1]], **shares)
    assert_equal(half_and_half, online, tolerance=2e-6)


def test_an_ensemble_of_two_families_logs_each_teacher_apart(tmp_path, rows):
    teachers = [llama(), gpt2()]
    one = trainer(tmp_path, teacher=teachers, train_dataset=rows, per_device_train_batch_size=16, learning_rate=0.0)
    one.train()
    for number, teacher in enumerate(teachers):
        sums, tokens = sums_by_hand(llama(seed=1, layers=2), teacher, rows, temperature=2.0)
        logged = one.state.log_history[0][f"forward_kl/teacher{number}"]
        assert logged == pytest.approx(sums["forward_kl"].item() / tokens, rel=1e-4)


def test_probabilities_and_logits_are_not_mixed_alike(tmp_path, rows):
    teachers = [llama(), llama(seed=2, layers=3)]
    one = trained(tmp_path, teacher=teachers, train_dataset=rows, mix="probabilities")
    other = trained(tmp_path, teacher=teachers, train_dataset=rows, mix="logits")
    assert any((one[name] - other[name]).abs().max() > 1e-4 for name in one)


def test_a_store_of_another_revision_is_refused(tmp_path, rows):
    folder = captured(tmp_path / "store", llama(), rows, revision="one").path
    wanted = Provenance("toy", "two", tokenizer_fingerprint(tokenizer()), "none")
    with pytest.raises(UserError, match=r"revision 'one'.*revision 'two'"):
        TargetStore(folder, expect=wanted)


def test_a_store_of_another_tokenizer_is_refused(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    other = copy.deepcopy(tokenizer())
    other.add_tokens(["another"])
    with pytest.raises(UserError, match="processing_class"):
        trainer(tmp_path, teacher=store, train_dataset=rows, processing_class=other)
    trainer(tmp_path, teacher=store, train_dataset=rows, processing_class=tokenizer())


def test_a_tokenizer_stays_the_same_when_it_has_been_used(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    used = copy.deepcopy(tokenizer())
    used(["a river", "the sea and the town"], padding=True, truncation=True, max_length=3)
    trainer(tmp_path, teacher=store, train_dataset=rows, processing_class=used)


def test_a_sample_that_was_not_captured_is_refused(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows[:12])
    with pytest.raises(UserError, match="not among the 12 captured"):
        trained(tmp_path, teacher=store, train_dataset=rows)


def test_a_sample_that_is_masked_otherwise_is_another_sample(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    unmasked = [{"input_ids": row["input_ids"]} for row in rows]
    with pytest.raises(UserError, match="masked"):
        trained(tmp_path, teacher=store, train_dataset=unmasked)


def test_targets_of_another_temperature_are_refused_before_training(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    with pytest.raises(UserError, match="temperature"):
        trained(tmp_path, teacher=store, train_dataset=rows, temperature=1.5)


def test_two_temperatures_need_whole_distributions(tmp_path, rows):
    both = [Loss("forward_kl", temperature=2.0), Loss("reverse_kl", temperature=1.0)]
    codec = make_codec("top_k", vocabulary=VOCABULARY, k=8, temperatures=(1.0, 2.0))
    store = captured(tmp_path / "store", llama(), rows, codec=codec)
    with pytest.raises(UserError, match="one temperature"):
        trainer(tmp_path, teacher=store, train_dataset=rows, losses=both)
    hidden = make_codec("hidden", vocabulary=VOCABULARY, hidden_size=32, bits=32)
    store = captured(tmp_path / "hidden", llama(), rows, codec=hidden)
    online = trained(tmp_path, teacher=llama(), train_dataset=rows, losses=both)
    assert_equal(trained(tmp_path, teacher=store, train_dataset=rows, losses=both), online, tolerance=2e-6)


@pytest.mark.parametrize("mode", ["top_k", "sample", "hybrid"])
def test_small_stores_teach_nearly_the_same(tmp_path, rows, mode):
    settings = {
        "top_k": {"k": 64, "bits": 8, "temperatures": (1.0,)},
        "sample": {"draws": 256},
        "hybrid": {"k": 32, "draws": 64},
    }
    losses = [Loss("forward_kl")]
    codec = make_codec(mode, vocabulary=VOCABULARY, **settings[mode])
    store = captured(tmp_path / "store", llama(), rows, codec=codec)
    before = weights(llama(seed=1, layers=2))
    online = trained(tmp_path, teacher=llama(), train_dataset=rows, losses=losses)
    found = trained(tmp_path, teacher=store, train_dataset=rows, losses=losses)
    moved = torch.cat([(online[name] - before[name]).flatten() for name in before])
    alike = torch.cat([(found[name] - before[name]).flatten() for name in before])
    assert torch.cosine_similarity(moved, alike, dim=0) > 0.8


def test_cross_entropy_alone_asks_no_teacher(tmp_path, rows):
    # Captured at temperature 2, and cross-entropy has none: reading the targets would fail.
    store, losses = captured(tmp_path / "store", llama(), rows), [Loss("cross_entropy")]
    plain = trained(tmp_path, losses=losses, train_dataset=rows)
    assert_equal(trained(tmp_path, teacher=store, losses=losses, train_dataset=rows), plain)
