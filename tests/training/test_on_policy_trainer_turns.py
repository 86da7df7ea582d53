"""Answers and turns that the student writes, read by teachers of other tokenizers behind prompts of their own."""

import pytest
import torch

from potstill import Loss
from potstill.data.prompts.across import AcrossSampleBuilder, AnswerReader
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.on_policy.rollouts import Rollout, RolloutWriter
from tiny import llama
from toy_chat import assistant, user
from toy_prompts import ROOMY, STRATEGIES
from toy_prompts import rows as questions
from toy_rollouts import ends_as_without_a_kill, logged, made, on_policy
from toy_training import assert_equal, weights
from toy_turns import by_row, captured, one_teacher, student, student_tokenizer, talks, teacher, teacher_tokenizer

LOSSES = (Loss("alm", 0.7), Loss("uld", 0.1, 2.0), Loss("shared_tokens", 0.2))
LAST = {"learn": "last"}
MORE = "More words."


def longer():
    """The conversations with a further turn, of which nothing but the last is learned."""
    return [{"messages": [*row["messages"], {"role": "user", "content": "So?"}, assistant(MORE)]} for row in talks()]


def answers():
    readers = [AnswerReader(TokenBytes(one, "x"), ROOMY) for one in (student_tokenizer(), teacher_tokenizer())]
    build = AcrossSampleBuilder(STRATEGIES, "ground-truth", readers[0], readers[1:])
    return [build(row, "a row") for row in questions()]


DATA = {"turns": longer, "answers": answers}
EACH = pytest.mark.parametrize("data", DATA)


def across(folder, settings=None, **more):
    asked = on_policy(**{"share": 1, "max_new_tokens": 40, **(settings or {})})
    given = {**one_teacher(), "conversations": LAST, "losses": LOSSES, "on_policy": asked, "max_steps": 1, **more}
    return made(folder, given.pop("student", None) or student(), **given)


@pytest.fixture
def repeats(monkeypatch):
    """A student that writes the corpus's own answers, whatever it is asked."""
    known = {}

    def learn(rows):
        for row in rows:
            ids, labels = [*map(int, row["input_ids"])], [*map(int, row["labels"])]
            begin = next(at for at, label in enumerate(labels) if label != -100)
            stop = next((at for at in range(begin, len(labels)) if labels[at] == -100), None)
            known[tuple(ids[:begin])] = ids[begin:stop]

    def write(self, asked, step):
        answered = {key: (prompt, known[tuple(prompt.student)]) for key, prompt in asked.items()}
        return {key: Rollout(prompt, ids, ids[-1] in self.ends, step) for key, (prompt, ids) in answered.items()}

    monkeypatch.setattr(RolloutWriter, "write", write)
    return learn


@EACH
def test_a_student_that_writes_the_corpus_learns_what_the_corpus_teaches(tmp_path, repeats, data):
    one = across(tmp_path / "a", train_dataset=DATA[data]())
    repeats(one.train_dataset)
    one.train()
    assert len(one.on_policy.rollouts) == len(one.train_dataset)
    other = across(tmp_path / "b", {"share": 0}, train_dataset=DATA[data]())
    other.train()
    assert_equal(weights(one.model), weights(other.model), tolerance=1e-6)
    for loss in LOSSES:
        (ours,), (theirs,) = logged(one, f"on_policy/{loss.kind}"), logged(other, loss.kind)
        assert ours[f"on_policy/{loss.kind}"] == pytest.approx(theirs[loss.kind], rel=1e-5)
        assert theirs[loss.kind] > 0
    (entry,) = logged(one, "on_policy/lost_text")
    assert entry["on_policy/lost_text"] == 0


def test_a_turn_that_the_teacher_has_no_room_for_is_not_written_for_it(tmp_path, repeats):
    def with_room(positions):
        other = llama(seed=3, vocab_size=len(teacher_tokenizer()), max_position_embeddings=positions)
        more = {"teacher": other, "conversations": {"too_long": "cut_right"}, "train_dataset": talks()}
        return across(tmp_path / str(positions), **more)

    for positions, written in ((200, {8}), (44, {*range(1, 8)})):
        one = with_room(positions)
        # The share is of those that the teacher reads.
        written &= {sum(map(one.on_policy.batches.turns.reads, one.train_dataset))}
        repeats([{**row, "labels": last_run(row)} for row in one.train_dataset])
        one.train()
        assert len(one.on_policy.rollouts) in written
        for rollout in one.on_policy.rollouts:
            ((prompt,), (read,)) = (
                rollout.prompt.others,
                one.on_policy.batches.turns.columns(rollout)["other_input_ids"],
            )
            assert read[: len(prompt)] == prompt
            assert len(prompt) < len(read) <= positions


def last_run(row):
    labels = [*row["labels"]]
    begin = max(at for at in range(1, len(labels)) if labels[at] != -100 and labels[at - 1] == -100)
    return [-100] * begin + labels[begin:]


@EACH
@pytest.mark.parametrize("share", [1, 0.5])
def test_the_sizes_of_micro_batches_change_nothing(tmp_path, data, share):
    found = []
    for size in (4, 2):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        one = across(tmp_path / str(size), {"share": share}, train_dataset=DATA[data]()[:4], **batch)
        one.train()
        found.append(weights(one.model))
    assert_equal(found[0], found[1], tolerance=1e-5)


def test_a_killed_training_continues_to_the_same_weights(tmp_path):
    ends_as_without_a_kill(tmp_path, across, student(9))


def test_teachers_by_row_read_what_the_student_wrote_to_their_rows(tmp_path, repeats):
    one = across(tmp_path, **{**by_row(), "losses": (Loss("alm"), Loss("cross_entropy"))})
    repeats(one.train_dataset)
    one.train()
    names = ["on_policy/alm/maths", "on_policy/alm/chat"]
    (entry,) = logged(one, *names)
    assert all(entry[name] > 0 for name in names)
    for rollout in one.on_policy.rollouts:
        taught = [name for name, prompt in zip(("maths", "chat"), rollout.prompt.others, strict=True) if prompt]
        assert taught == list(rollout.prompt.taught_by)
    # A row without a teacher has nobody who would read an answer.
    assert len(one.on_policy.rollouts) == 6


def test_a_store_of_turns_knows_no_written_turn(tmp_path):
    rows = captured(tmp_path / "stores", by_row())
    with pytest.raises(UserError, match="`on_policy` needs a teacher that reads what the student writes"):
        across(tmp_path / "t", **{**rows, "losses": (Loss("alm"), Loss("cross_entropy"))})


def test_only_written_words_are_compared(tmp_path):
    one = across(tmp_path)
    with torch.no_grad():
        one.model.lm_head.weight.mul_(0)
    one.train()
    (entry,) = logged(one, "on_policy/lost_text")
    # Tokens at random are seldom text.
    assert 0 < entry["on_policy/lost_text"] <= 1


def test_a_teacher_that_never_reads_an_answer_from_its_beginning_is_refused(tmp_path):
    short = llama(seed=3, vocab_size=len(teacher_tokenizer()), max_position_embeddings=48)
    turns = [user("So?"), assistant("Go now."), user("And then? " * 20), assistant("It is.")]
    more = {"teacher": short, "conversations": {"too_long": "cut_right"}, "train_dataset": [{"messages": turns}]}
    with pytest.raises(UserError, match="`on_policy`: samples with a teacher: 1; none of them"):
        across(tmp_path, **more)
    # One that it reads is enough, however late.
    more["train_dataset"] = [*more["train_dataset"] * 9, {"messages": turns[:2]}]
    assert across(tmp_path, **more).on_policy is not None


def test_a_reader_of_written_answers_reads_them_to_their_ends(tmp_path, repeats):
    found = []
    for more in ({}, {"rollout_teacher": teacher()}):
        one = across(tmp_path / str(len(more)), **more)
        repeats(one.train_dataset)
        one.train()
        found.append(weights(one.model))
    assert_equal(*found, tolerance=1e-6)
    short = llama(seed=3, vocab_size=len(teacher_tokenizer()), max_position_embeddings=60)
    one = across(tmp_path / "short", rollout_teacher=short)
    assert [side.longest for side in one.on_policy.batches.turns.teachers] == [60]


def test_several_answers_to_a_prompt_and_none_that_is_finished(tmp_path):
    one = across(tmp_path / "several", {"samples": 4, "share": 1})
    one.train()
    assert len({tuple(rollout.prompt.student) for rollout in one.on_policy.rollouts}) == 2
    nothing = across(tmp_path / "none", {"unfinished": "drop", "max_new_tokens": 1})
    before = weights(nothing.model)
    nothing.train()
    assert not any(rollout.finished for rollout in nothing.on_policy.rollouts)
    assert_equal(weights(nothing.model), before)
