"""An answer behind the prompts of student and teachers, each in tokens of its own: what is compared, byte by byte."""

from copy import deepcopy

import pytest

from potstill.data.collators import Collator
from potstill.data.labels import supervised_mask
from potstill.data.prompts.across import AcrossSampleBuilder, AnswerReader
from potstill.data.prompts.collator import teacher_batch
from potstill.data.prompts.render import end_token_id, prompt_ids
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import PIECES, TurnPiece, TurnsCollator
from potstill.errors import UserError
from tiny import tokenizer
from tokenizer_zoo import stories
from tokenizer_zoo import trained as byte_level
from toy_prompts import CHAT, ROOMY, STRATEGIES, chatty, rows


def reader(made, longest=ROOMY):
    return AnswerReader(TokenBytes(made, "a reader"), longest)


def with_template(made):
    made = deepcopy(made)
    made.chat_template = CHAT
    return made


STUDENTS = {"plain": tokenizer, "chat": chatty}
TEACHERS = {"byte level": byte_level, "stories": stories, "chat": lambda: with_template(stories())}


def builder(student, *teachers, names=None, strategy="ground-truth"):
    return AcrossSampleBuilder(STRATEGIES, strategy, student, teachers, names)


@pytest.mark.parametrize("ours", STUDENTS)
@pytest.mark.parametrize("theirs", TEACHERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_answer_and_its_end_are_compared_and_no_prompt_is(ours, theirs, strategy):
    student, teacher = reader(STUDENTS[ours]()), reader(TEACHERS[theirs]())
    make = builder(student, teacher, strategy=strategy)
    for row in rows():
        sample = make(row, "a row")
        ((read,), (labels,), (numbers,)) = sample["other_input_ids"], sample["other_labels"], sample[PIECES]
        for ids, one, prompt in (
            (sample["input_ids"], student, STRATEGIES[strategy].student),
            (read, teacher, STRATEGIES[strategy].teacher),
        ):
            asked = prompt_ids(one.bytes.tokenizer, prompt, row, "a row", "key")
            assert ids[: len(asked)] == asked
            assert ids[-1] == end_token_id(one.bytes.tokenizer)
        (piece,) = [TurnPiece(*numbers)]
        assert piece.begin == sample["answer_start"]
        assert piece.closed
        mine = student.bytes.joined(sample["input_ids"][piece.begin : piece.stop])[piece.own_space :]
        assert mine == teacher.bytes.joined(read[piece.other_begin : piece.other_stop])[piece.other_own_space :]
        assert mine.decode() == row["answer"]
        assert [label >= 0 for label in labels] == [at >= piece.other_begin for at in range(len(read))]
    assert make.compared[0].share == 1


def test_the_last_span_of_an_answer_ends_with_it():
    student, teacher = reader(chatty()), reader(byte_level())
    make = builder(student, teacher)
    batch = TurnsCollator(Collator(0), student.bytes, teacher.bytes)([make(row, "a row") for row in rows()])
    own = teacher_batch(batch)
    spans = own["spans"]
    for side, columns, one in ((batch, spans[:, :2], student), (own, spans[:, 2:4], teacher)):
        places = supervised_mask({name: side[name] for name in ("input_ids", "labels")}).flatten().nonzero()[:, 0] + 1
        ids = side["input_ids"].flatten()[places].tolist()
        ends = [ids[end] == one.end for end in columns[:, 1].tolist()]
        assert sum(ends) == len(rows())


def test_spans_and_lost_bytes_of_answers_are_counted():
    student, teacher = reader(chatty()), reader(byte_level())
    make = builder(student, teacher)
    answers = [f"{row['answer']} \u2460" for row in rows()]
    samples = [make({**row, "answer": answer}, "a row") for row, answer in zip(rows(), answers, strict=True)]
    spans = TurnsCollator(Collator(0), student.bytes, teacher.bytes)(samples)["teacher_spans"]
    (found,) = make.compared
    assert found.spans == len(spans) > len(rows())
    assert found.student_tokens == (spans[:, 1] - spans[:, 0]).sum()
    assert found.bytes == sum(len(answer.encode()) for answer in answers)
    assert (found.lost_by_student, found.lost_by_teacher) == (0, 3 * len(rows()))


def test_what_either_has_lost_is_not_compared():
    whole = builder(reader(tokenizer()), reader(byte_level()))(rows()[0], "a row")
    prompt, answer = whole["answer_start"], len(whole["input_ids"]) - whole["answer_start"]
    longest = max(len(prompt_ids(tokenizer(), one.student, rows()[0], "a row", "")) for one in STRATEGIES.values())
    short = reader(tokenizer(), longest + answer - 3)
    cut = builder(short, reader(byte_level()))(rows()[0], "a row")
    assert cut["answer_cut"] == 3
    assert cut["other_input_ids"] == whole["other_input_ids"]
    assert not TurnPiece(*cut[PIECES][0]).closed
    assert len(cut["input_ids"]) == prompt + answer - 3


def test_each_teacher_has_its_rows():
    make = builder(reader(tokenizer()), reader(byte_level()), reader(stories()), names=("one", "two"))
    sample = make({**rows()[0], "teachers": ["two"]}, "a row")
    assert sample["teachers"] == ["two"]
    assert sample["other_input_ids"][0] == sample[PIECES][0] == []
    assert sample[PIECES][1]
    of_one, of_two = make.compared
    assert of_one.bytes == of_one.spans == 0
    assert of_two.bytes == len(rows()[0]["answer"].encode())


def test_a_prompt_without_room_for_the_answer_is_named():
    make = builder(reader(tokenizer()), reader(byte_level(), 10))
    with pytest.raises(UserError, match=r"a row: `strategies.*teacher` makes a prompt of .* in the teacher's 10"):
        make(rows()[0], "a row")
