"""Samples that name their teachers: each teacher reads its own samples alone, and the step is that of the formula."""

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig

from potstill import HiddenLoss, Loss
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX, count_supervised
from potstill.errors import UserError
from potstill.training.taught_rows import GROUPS, ORDER, TaughtRows, reader_of
from tiny import llama, tokenizer
from toy_chat import assistant, chat_tokenizer, user
from toy_training import (
    KL_AND_CE,
    assert_equal,
    captured,
    prompted,
    samples,
    sums_by_hand,
    trained,
    trainer,
    weights,
)

OF = {"maths": ["maths"], "chat": ["chat"], "both": ["maths", "chat"], "nobody": []}


def named(rows, *kinds):
    """The rows, whose teachers are those of each kind in turn."""
    return [{**row, "teachers": OF[kinds[at % len(kinds)]]} for at, row in enumerate(rows)]


def teachers():
    return {"maths": llama(), "chat": llama(seed=2, layers=3)}


def rows_of(rows, *wanted):
    return [row for row in rows if row["teachers"] == list(wanted)]


@pytest.fixture(scope="module")
def rows():
    return named(samples(8, seed=8), "chat", "maths", "nobody")


def loss_by_hand(student, rows):
    """Both divergences of `KL_AND_CE`, each row read alone by its own teacher."""
    total, tokens = torch.tensor(0.0), 0
    for name, teacher in [*teachers().items(), ("nobody", None)]:
        sums, count = sums_by_hand(student, teacher, rows_of(rows, *OF[name]), temperature=2.0)
        total = total + 0.7 * sums["forward_kl"] + 0.3 * sums["cross_entropy"]
        tokens += count
    return total / tokens


@pytest.mark.parametrize("cut", [(8, 1), (2, 4), (1, 8)], ids=["one-batch", "some", "one-row-each"])
def test_the_step_is_that_of_the_formula_whatever_the_micro_batches(tmp_path, rows, cut):
    # Of single rows, a teacher has nothing to read in most micro-batches.
    student = llama(seed=1, layers=2)
    before = weights(student)
    expected = loss_by_hand(student, rows)
    gradients = torch.autograd.grad(expected, list(student.parameters()))
    wanted = dict(zip((name for name, _ in student.named_parameters()), gradients, strict=True))
    sizes = {"per_device_train_batch_size": cut[0], "gradient_accumulation_steps": cut[1], "max_steps": 1}
    one = trainer(tmp_path, student, teacher=teachers(), train_dataset=rows, **sizes)
    one.train()
    for name, gradient in wanted.items():
        moved = (before[name] - weights(student)[name]) / 0.5
        torch.testing.assert_close(moved, gradient, rtol=1e-4, atol=3e-6, msg=name)
    assert one.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("cut", [(8, 1), (2, 4)])
def test_the_log_has_each_teacher_s_mean_and_its_tokens(tmp_path, rows, cut):
    student = llama(seed=1, layers=2)
    expected = {}
    for name, teacher in teachers().items():
        sums, tokens = sums_by_hand(student, teacher, rows_of(rows, name), temperature=2.0)
        expected |= {f"forward_kl/{name}": sums["forward_kl"].item() / tokens, f"tokens/{name}": tokens}
    alone = sums_by_hand(student, None, rows_of(rows))[1]
    every = alone + expected["tokens/maths"] + expected["tokens/chat"]
    divergence = sum(expected[f"forward_kl/{name}"] * expected[f"tokens/{name}"] for name in teachers())
    expected |= {"tokens_without_teacher": alone, "forward_kl": divergence / every}
    sizes = {"per_device_train_batch_size": cut[0], "gradient_accumulation_steps": cut[1], "max_steps": 1}
    one = trainer(tmp_path, student, teacher=teachers(), train_dataset=rows, **sizes)
    one.train()
    logged = one.state.log_history[0]
    assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert logged["loss"] == pytest.approx(0.7 * logged["forward_kl"] + 0.3 * logged["cross_entropy"], rel=1e-5)


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
def test_samples_of_all_teachers_are_those_of_an_ensemble(tmp_path, mix):
    plain, more = samples(8, seed=8), {"mix": mix, "teacher_weights": [1, 3]}
    together = trained(tmp_path, teacher=[*teachers().values()], train_dataset=plain, **more)
    by_row = trained(tmp_path, teacher=teachers(), train_dataset=named(plain, "both"), **more)
    assert_equal(by_row, together, tolerance=1e-6)


def test_an_ensemble_of_some_has_the_shares_of_these_alone(tmp_path):
    three = {**teachers(), "code": llama(seed=5)}
    rows = [{**row, "teachers": ["maths", "chat"]} for row in samples(8, seed=8)]
    found = trained(tmp_path, teacher=three, train_dataset=rows, teacher_weights=[1, 3, 16])
    two = trained(tmp_path, teacher=[*teachers().values()], train_dataset=samples(8, seed=8), teacher_weights=[1, 3])
    assert_equal(found, two, tolerance=1e-6)


def test_the_order_of_samples_changes_nothing(tmp_path):
    rows = named(samples(8, seed=8), "chat", "maths", "nobody", "both")
    found = [trained(tmp_path, teacher=teachers(), train_dataset=given) for given in (rows, rows[::-1])]
    assert_equal(*found, tolerance=2e-6)


@pytest.mark.parametrize("kinds", [("maths",), ("chat", "maths", "nobody"), ("both", "nobody", "chat")])
def test_captured_targets_teach_what_the_teachers_do(tmp_path, kinds):
    rows = named(samples(8, seed=8), *kinds)
    online = trained(tmp_path, teacher=teachers(), train_dataset=rows)
    stores = {
        name: captured(tmp_path / name, model, [row for row in rows if name in row["teachers"]] or rows)
        for name, model in teachers().items()
    }
    assert_equal(trained(tmp_path, teacher=stores, train_dataset=rows), online, tolerance=2e-6)
    half = {**teachers(), "chat": stores["chat"]}
    assert_equal(trained(tmp_path, teacher=half, train_dataset=rows), online, tolerance=2e-6)


def test_a_store_has_its_teacher_s_samples_alone(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows_of(rows, "maths"))
    found = trained(tmp_path, teacher={**teachers(), "maths": store}, train_dataset=rows)
    assert_equal(found, trained(tmp_path, teacher=teachers(), train_dataset=rows), tolerance=2e-6)
    other = [{**row, "teachers": ["maths"]} for row in rows]
    with pytest.raises(UserError, match=r"samples are not among the .* captured in"):
        trained(tmp_path, teacher={"maths": store}, train_dataset=other)


def test_teachers_that_read_other_prompts(tmp_path):
    rows = named(prompted(count=8), "chat", "maths", "nobody", "both")
    more = {"processing_class": tokenizer(), "max_steps": 1}
    wide = {name: llama(seed, max_position_embeddings=400) for seed, name in enumerate(("maths", "chat"))}
    once = trained(tmp_path, teacher=wide, train_dataset=rows, **more)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_equal(trained(tmp_path, teacher=wide, train_dataset=rows, **cut, **more), once, tolerance=2e-6)
    for name in wide:
        other = {**wide, name: llama(seed=9, max_position_embeddings=400)}
        changed = trained(tmp_path, teacher=other, train_dataset=rows, **more)
        assert not torch.equal(changed["lm_head.weight"], once["lm_head.weight"]), name


@pytest.mark.parametrize(
    "given",
    [
        {"peft_config": LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="gaussian")},
        {"dataloader_num_workers": 1},
        {"losses": (Loss("reverse_kl"), Loss("jsd"), Loss("cross_entropy"))},
        {"gradient_checkpointing": True},
    ],
    ids=["adapter", "worker", "other-losses", "checkpointing"],
)
def test_it_works_with(tmp_path, rows, given):
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    found = [trained(tmp_path, teacher=teachers(), train_dataset=rows, **given, **more) for more in ({}, cut)]
    assert_equal(*found, tolerance=2e-6)


def test_a_student_whose_head_cannot_be_extracted(tmp_path, rows, monkeypatch):
    expected = trained(tmp_path, teacher=teachers(), train_dataset=rows)
    monkeypatch.setattr("potstill.training.trainer.head_of", lambda model: None)
    assert_equal(trained(tmp_path, teacher=teachers(), train_dataset=rows), expected, tolerance=2e-6)


@pytest.mark.parametrize("kind", [list, Dataset.from_list], ids=["list", "table"])
@pytest.mark.parametrize("own", [None, Collator(0)], ids=["own-collator", "given-collator"])
def test_a_table_s_column_of_names(tmp_path, rows, kind, own):
    one = [{**row, "teachers": row["teachers"][0] if row["teachers"] else []} for row in rows] if kind is list else rows
    found = trained(tmp_path, teacher=teachers(), train_dataset=kind(one), data_collator=own)
    assert_equal(found, trained(tmp_path, teacher=teachers(), train_dataset=rows))


@pytest.mark.parametrize("wider", [{}, {"hidden_size": 48}], ids=["same-size", "projected"])
def test_layers_are_matched_with_those_of_a_sample_s_teachers(tmp_path, wider):
    two = {"maths": llama(**wider), "chat": llama(seed=2, **wider)}
    losses = [HiddenLoss(weight=0.6), Loss("cross_entropy", weight=0.3)]
    rows = named(samples(8, seed=8), "chat", "maths", "nobody", "both")
    found = {}
    one_each = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    for name, sizes in {"once": {}, "cut": one_each}.items():
        one = trainer(tmp_path, teacher=two, train_dataset=rows, losses=losses, max_steps=1, **sizes)
        one.train()
        found[name] = {**weights(one.model), **weights(one._matching)}, one.state.log_history[0]
    assert_equal(found["once"][0], found["cut"][0], tolerance=2e-6)
    assert found["once"][1]["hidden_match/maths"] == pytest.approx(found["cut"][1]["hidden_match/maths"], rel=1e-4)
    # Rows of both are matched with both, by halves: as an ensemble of these rows alone.
    ensemble, by_row = (
        trained(tmp_path, teacher=given, train_dataset=taught, losses=losses, max_steps=1)
        for given, taught in ((list(two.values()), samples(8, seed=8)), (two, named(samples(8, seed=8), "both")))
    )
    assert_equal(by_row, ensemble, tolerance=1e-6)


def test_samples_of_nobody_are_learned_by_cross_entropy_alone(tmp_path):
    plain = samples(8, seed=8)
    found = trained(tmp_path, teacher=teachers(), train_dataset=named(plain, "nobody"))
    alone = [loss for loss in KL_AND_CE if loss.kind == "cross_entropy"]
    assert_equal(found, trained(tmp_path, train_dataset=plain, losses=alone), tolerance=1e-6)


@pytest.mark.parametrize(
    ("changed", "losses", "message"),
    [
        ({"teachers": None}, KL_AND_CE, "no `teachers`; give each sample the names of its teachers \\(maths, chat\\)"),
        ({"teachers": ["math"]}, KL_AND_CE, "has 'math', which is no teacher; they are maths, chat"),
        ({"teachers": [0]}, KL_AND_CE, "has 0, which is no teacher"),
        ({"teachers": 1}, KL_AND_CE, "has 1, which is no teacher"),
        ({"teachers": []}, KL_AND_CE[:1], "supervised tokens have no teacher, and without one only cross_entropy"),
    ],
)
def test_what_cannot_be_taught_is_refused(tmp_path, rows, changed, losses, message):
    wrong = [*rows_of(rows, "maths"), {**rows[0], **changed}]
    with pytest.raises(UserError, match=message):
        trained(tmp_path, teacher=teachers(), train_dataset=wrong, losses=losses)


@pytest.mark.parametrize("given", [{}, {1: llama()}], ids=["empty", "a-number"])
def test_teachers_have_names(tmp_path, given):
    with pytest.raises(UserError, match="must have a text as the name of each teacher"):
        trainer(tmp_path, teacher=given)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([*OF]), min_size=1, max_size=6), st.integers(0, 99))
def test_every_supervised_token_is_in_one_group_and_in_the_batches_of_its_teachers(kinds, seed):
    rows = named(samples(len(kinds), seed), *kinds)
    taught = TaughtRows(("maths", "chat"), {})
    batch = taught.shared_out(Collator(0)(rows), rows)
    tokens = int(count_supervised(batch))
    assert sum(group.tokens for group in batch[GROUPS].groups) == tokens
    order = batch.get(ORDER, torch.arange(tokens))
    assert sorted(order.tolist()) == list(range(tokens))
    labels = [label for row in rows for label in row["labels"][1:] if label != IGNORE_INDEX]
    owner = [set(row["teachers"]) for row in rows for label in row["labels"][1:] if label != IGNORE_INDEX]
    for number, name in enumerate(taught.names):
        own = batch.get(f"{reader_of(number)}labels", torch.zeros(0, 1, dtype=torch.long))[:, 1:]
        read = own[own != IGNORE_INDEX].tolist()
        assert read == [labels[place] for place in order.tolist() if name in owner[place]]


def test_conversations_that_name_their_teachers(tmp_path):
    told = chat_tokenizer()
    kinds = [*OF.values()]
    chats = [{"messages": [user(f"{n} why?"), assistant(f"it is {n}.")], "teachers": kinds[n % 4]} for n in range(8)]
    read = {"vocab_size": len(told), "max_position_embeddings": 256}
    two = {"maths": llama(**read), "chat": llama(2, **read)}
    given = {"teacher": two, "processing_class": told, "max_steps": 1, "conversations": {"template": "chatml"}}
    one = trainer(tmp_path, llama(1, layers=2, **read), train_dataset=Dataset.from_list(chats), **given)
    rendered = list(one.train_dataset)
    assert [list(row["teachers"]) for row in rendered] == [chat["teachers"] for chat in chats]
    one.train()
    logged = one.state.log_history[0]
    assert logged["tokens/maths"] == logged["tokens/chat"] == 2 * logged["tokens_without_teacher"] > 0
