"""A trainer's conversations, which a teacher of another tokenizer reads by its own chat template."""

from copy import deepcopy

import pytest
import torch

import toy_chat
from potstill import Loss
from potstill.data.prompts.collator import teacher_batch
from potstill.errors import UserError
from tiny import TEXT, llama
from tokenizer_zoo import trained as byte_level
from toy_chat import assistant, user
from toy_training import assert_equal, trained, trainer

LOSSES = (Loss("alm", 0.7), Loss("uld", 0.1, 2.0), Loss("shared_tokens", 0.2), Loss("cross_entropy", 0.3))
SPECIAL = ["<start_of_turn>", "<end_of_turn>"]
WORDS = TEXT.split()[:15]


@pytest.fixture(scope="module")
def student():
    made = deepcopy(toy_chat.chat_tokenizer())
    made.chat_template = toy_chat.template("chatml").text
    return made


@pytest.fixture(scope="module")
def teacher():
    made = deepcopy(byte_level())
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.chat_template = toy_chat.template("gemma").text
    return made


def rows(count=8):
    """Conversations of one or two turns, of very different lengths."""
    found = []
    for n in range(count):
        words = WORDS[n % 5 :]
        turns = [user(f"What {words[0]}?"), assistant(" ".join(words[: 3 + n]) + ".")]
        found.append({"messages": [*turns, user("And now?"), assistant(f"It {words[1]}.")] if n % 3 else turns})
    return found


@pytest.fixture(scope="module")
def given(student, teacher):
    models = {"teacher": llama(seed=3, vocab_size=len(teacher), max_position_embeddings=512)}
    tokenizers = {"processing_class": student, "teacher_tokenizer": teacher}
    return {**models, **tokenizers, "losses": LOSSES, "train_dataset": rows(), "max_steps": 1}


def own(student, seed=1):
    return llama(seed=seed, layers=2, vocab_size=len(student), max_position_embeddings=512)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, student, given):
    return trained(tmp_path_factory.mktemp("whole"), own(student), **given)


def test_accumulated_batches_are_one_batch(tmp_path, student, given, whole):
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_equal(trained(tmp_path, own(student), **given, **batch), whole, tolerance=1e-5)


def test_the_order_of_conversations_changes_nothing(tmp_path, student, given, whole):
    turned = {**given, "train_dataset": rows()[::-1]}
    assert_equal(trained(tmp_path, own(student), **turned), whole, tolerance=1e-5)


def test_it_is_said_what_is_compared(tmp_path, student, given, capsys):
    one = trainer(tmp_path, own(student), **given, eval_dataset=rows(3))
    assert "100.0% of the learned bytes are compared with the teacher" in capsys.readouterr().out
    one.train()
    assert all(one.state.log_history[0][loss.kind] > 0 for loss in LOSSES)
    assert one.evaluate()["eval_loss"] > 0


def test_the_teachers_last_span_has_the_probability_of_its_own_end(tmp_path, student, teacher, given):
    few = {**given, "train_dataset": [{"messages": [user("So?"), assistant("Go now.")]}], "losses": [Loss("alm")]}
    one = trainer(tmp_path, own(student), **few)
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


def test_it_learns_what_the_teacher_says(tmp_path, student, given):
    """The distance falls on conversations that are seen again and again."""
    fields = {"max_steps": 40, "learning_rate": 5e-3, "optim": "adamw_torch", "losses": [Loss("alm")]}
    one = trainer(tmp_path, own(student), **{**given, **fields})
    one.train()
    alm = [entry["alm"] for entry in one.state.log_history if "alm" in entry]
    assert alm[-1] < 0.5 * alm[0]


def test_the_ends_of_turns_are_one_shared_token(tmp_path, student, teacher, given):
    one = trainer(tmp_path, own(student), **given)
    (across,) = one.teachers
    batch = teacher_batch(next(iter(one.get_train_dataloader())))
    pairs = across.target(batch).pairs
    ends = student.convert_tokens_to_ids("<|im_end|>"), teacher.convert_tokens_to_ids("<end_of_turn>")
    assert ends in set(zip(pairs.ours.tolist(), pairs.theirs.tolist(), strict=True))


REFUSED = {
    "several": ({"several": True}, "conversations have one teacher of another tokenizer"),
    "written samples": (
        {"on_policy": {"share": 0.5, "max_new_tokens": 8}},
        "`on_policy` has no turns of conversations for a teacher of another tokenizer",
    ),
    "split turns": ({"conversations": {"too_long": "split_turns"}}, "too_long.*use `drop` or `cut_right`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_conversations_cannot_have_across_tokenizers_is_refused(tmp_path, student, given, name):
    more, message = REFUSED[name]
    asked = {**given, **{key: value for key, value in more.items() if key != "several"}}
    if more.get("several"):
        asked |= {"teacher": [given["teacher"]] * 2, "teacher_tokenizer": [given["teacher_tokenizer"]] * 2}
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, own(student), **asked)


def test_a_teacher_without_a_chat_template_is_named(tmp_path, student, given):
    bare = deepcopy(given["teacher_tokenizer"])
    bare.chat_template = None
    with pytest.raises(UserError, match="the teacher reads conversations by its tokenizer's own chat template"):
        trainer(tmp_path, own(student), **{**given, "teacher_tokenizer": bare})
