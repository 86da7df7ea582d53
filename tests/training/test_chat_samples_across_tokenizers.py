"""A trainer's conversations, which a teacher of another tokenizer reads by its own chat template."""

from copy import deepcopy

import pytest
import torch

from potstill import Loss
from potstill.data.prompts.collator import teacher_batch
from potstill.errors import UserError
from tiny import TEXT, llama
from toy_chat import assistant, user
from toy_training import assert_equal, trained, trainer, weights
from toy_turns import ALM, by_row, captured, one_teacher, student_tokenizer, talks, teacher_tokenizer
from toy_turns import student as toy_student

LOSSES = (Loss("alm", 0.7), Loss("uld", 0.1, 2.0), Loss("shared_tokens", 0.2), Loss("cross_entropy", 0.3))
STEP = {"max_steps": 1}


@pytest.fixture(scope="module")
def student():
    return student_tokenizer()


@pytest.fixture(scope="module")
def teacher():
    return teacher_tokenizer()


@pytest.fixture(scope="module")
def given():
    return {**one_teacher(), "losses": LOSSES, **STEP}


@pytest.fixture(scope="module")
def ways(tmp_path_factory, given):
    """The ways in which teachers of other tokenizers teach conversations."""
    live = {**by_row(), **STEP}
    return {"live": given, "by row": live, "captured": captured(tmp_path_factory.mktemp("stores"), live)}


WAYS = pytest.mark.parametrize("way", ["live", "by row", "captured"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, ways):
    return {way: trained(tmp_path_factory.mktemp("whole"), toy_student(), **one) for way, one in ways.items()}


@WAYS
def test_accumulated_batches_are_one_batch(tmp_path, ways, whole, way):
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_equal(trained(tmp_path, toy_student(), **ways[way], **batch), whole[way], tolerance=1e-5)


@WAYS
def test_the_order_of_conversations_changes_nothing(tmp_path, ways, whole, way):
    turned = {**ways[way], "train_dataset": ways[way]["train_dataset"][::-1]}
    assert_equal(trained(tmp_path, toy_student(), **turned), whole[way], tolerance=1e-5)


@WAYS
def test_a_resumed_training_ends_in_the_same_weights(tmp_path, ways, way):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 4}
    learning = {"optim": "adamw_torch", "learning_rate": 1e-2, "train_sampling_strategy": "random"}
    both = {**ways[way], **saving, **learning}
    first = trainer(tmp_path, toy_student(), **both)
    first.train()
    again = trainer(tmp_path, toy_student(9), **both)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_equal(weights(again.model), weights(first.model))


def test_captured_teachers_teach_what_live_ones_teach(whole):
    assert_equal(whole["captured"], whole["by row"], tolerance=2e-5)


def test_several_teachers_of_all_rows_are_averaged(tmp_path, given, ways):
    """A teacher that is given twice is one teacher; and of two, one may count alone."""
    few = {**given, "losses": ALM}
    alone = trained(tmp_path / "one", toy_student(), **few)
    twice = {"teacher": [given["teacher"]] * 2, "teacher_tokenizer": [given["teacher_tokenizer"]] * 2}
    assert_equal(trained(tmp_path / "two", toy_student(), **{**few, **twice}), alone, tolerance=1e-5)
    rows = ways["by row"]
    both = {"teacher": [*rows["teacher"].values()], "teacher_tokenizer": rows["teacher_tokenizer"]}
    heavy = {**few, **both, "teacher_weights": [1.0, 1e-9]}
    assert_equal(trained(tmp_path / "heavy", toy_student(), **heavy), alone, tolerance=1e-5)


def test_the_order_of_teachers_changes_nothing_where_one_reads_no_turn_to_its_end(tmp_path, given):
    cut = {"conversations": {"too_long": "cut_right"}, "losses": ALM}
    short = llama(seed=4, vocab_size=len(teacher_tokenizer()), max_position_embeddings=24)
    both = [given["teacher"], short]
    found = []
    for order in (both, both[::-1]):
        more = {**cut, "teacher": order, "teacher_tokenizer": [given["teacher_tokenizer"]] * 2}
        one = trainer(tmp_path, toy_student(), **{**given, **more})
        one.train()
        found.append(weights(one.model))
        closes = [across._ends[1].any().item() for across in one.teachers]
        assert closes == [model is given["teacher"] for model in order]
    assert_equal(*found, tolerance=1e-5)


def test_a_store_of_turns_needs_the_teachers_tokenizer(tmp_path, given, ways):
    bare = {**given, "teacher": ways["captured"]["teacher"]["maths"], "losses": ALM, "teacher_tokenizer": None}
    with pytest.raises(UserError, match=r"captured of turns, .* give its tokenizer as `teacher_tokenizer`"):
        trainer(tmp_path, toy_student(), **bare)


def test_a_store_of_turns_knows_no_texts_and_no_other_turns(tmp_path, given, ways):
    bare = {**given, "teacher": ways["captured"]["teacher"]["maths"], "losses": ALM}
    with pytest.raises(UserError, match="captured of conversations or questions, and the samples are texts"):
        trainer(tmp_path, toy_student(), **{**bare, "train_dataset": [{"text": TEXT}]})
    others = [{"messages": [user("So?"), assistant("Something else.")]}]
    with pytest.raises(UserError, match="1 of 1 samples are not among the"):
        trainer(tmp_path, toy_student(), **{**bare, "train_dataset": others})


def test_it_is_said_what_is_compared(tmp_path, given, capsys):
    one = trainer(tmp_path, toy_student(), **given, eval_dataset=talks(3))
    told = "100.0% of the learned text is compared with the teacher, in "
    assert f"  {told}" in (said := capsys.readouterr().out)
    assert " spans of " in said
    one.train()
    assert all(one.state.log_history[0][loss.kind] > 0 for loss in LOSSES)
    assert one.evaluate()["eval_loss"] > 0


def test_turns_that_a_teacher_cannot_give_back_are_refused(tmp_path, given):
    lost = [{"messages": [user("So?"), assistant("Go \u2460 now.")]}]
    told = r"the tokens of the teacher do not give back \d+\.\d% of the learned text .3 of \d+ bytes., and at most 1%"
    with pytest.raises(UserError, match=told):
        trainer(tmp_path, toy_student(), **{**given, "train_dataset": lost})


def test_the_teachers_last_span_has_the_probability_of_its_own_end(tmp_path, teacher, given):
    few = {**given, "train_dataset": [{"messages": [user("So?"), assistant("Go now.")]}], "losses": [Loss("alm")]}
    one = trainer(tmp_path, toy_student(), **few)
    batch = teacher_batch(next(iter(one.get_train_dataloader())))
    (across,) = one.teachers
    found = across.target(batch)
    ids = batch["input_ids"]
    with torch.no_grad():
        log_p = across.teacher.model(input_ids=ids).logits[0].double().log_softmax(-1)
    end = teacher.convert_tokens_to_ids("<end_of_turn>")
    stop = ids[0].tolist().index(end, (batch["labels"][0] != -100).nonzero()[0].item())
    first = (batch["labels"][0] != -100).nonzero()[0].item()
    each = [log_p[at - 1, ids[0, at]] for at in range(first, stop + 1)]
    begins = torch.zeros(len(teacher), dtype=torch.bool)
    begins[: len(across.theirs.each)] = torch.from_numpy(across.theirs.begins_word)
    mass = log_p[:, begins].logsumexp(-1)
    words = [at for at in range(first + 1, stop) if begins[ids[0, at]]]
    assert len(words) == 1, "two words are two spans"
    spans = [sum(each[: words[0] - first]) + mass[words[0] - 1], sum(each[words[0] - first :]) - mass[words[0] - 1]]
    groups = torch.zeros(2, dtype=torch.float64).index_add(0, found.group, torch.stack(spans))
    torch.testing.assert_close(found.log_q.double(), groups, rtol=1e-4, atol=1e-4)
    # However improbable the end of a turn is, the words before it are compared.
    assert found.used[found.group[-1]]


def test_it_learns_what_the_teacher_says(tmp_path, given):
    """The distance falls on conversations that are seen again and again."""
    fields = {"max_steps": 40, "learning_rate": 5e-3, "optim": "adamw_torch", "losses": [Loss("alm")]}
    one = trainer(tmp_path, toy_student(), **{**given, **fields})
    one.train()
    alm = [entry["alm"] for entry in one.state.log_history if "alm" in entry]
    assert alm[-1] < 0.5 * alm[0]


def test_the_ends_of_turns_are_one_shared_token(tmp_path, student, teacher, given):
    one = trainer(tmp_path, toy_student(), **given)
    (across,) = one.teachers
    batch = teacher_batch(next(iter(one.get_train_dataloader())))
    pairs = across.target(batch).pairs
    ends = student.convert_tokens_to_ids("<|im_end|>"), teacher.convert_tokens_to_ids("<end_of_turn>")
    assert ends in set(zip(pairs.ours.tolist(), pairs.theirs.tolist(), strict=True))


def test_turns_cannot_be_split_across_tokenizers(tmp_path, given):
    more = {"conversations": {"too_long": "split_turns"}}
    with pytest.raises(UserError, match=r"too_long.*use `drop` or `cut_right`"):
        trainer(tmp_path, toy_student(), **{**given, **more})


def test_a_teacher_without_a_chat_template_is_named(tmp_path, given):
    bare = deepcopy(given["teacher_tokenizer"])
    bare.chat_template = None
    with pytest.raises(UserError, match="the teacher reads conversations by its tokenizer's own chat template"):
        trainer(tmp_path, toy_student(), **{**given, "teacher_tokenizer": bare})
