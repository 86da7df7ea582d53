"""Conversations that are measured before a run have the samples that the corpus stage makes of them."""

import json

import pytest

from potstill.data.conversations.split import split_conversations
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import training_rows
from potstill.errors import UserError
from potstill.planning.ranges import ZERO, Range
from potstill.planning.sampling import local_files
from potstill.planning.sampling import measured_chats as module
from potstill.planning.sampling.measured_chats import measured_chats
from potstill.recipe import load_recipe
from toy_chat import assistant, chat_tokenizer, user

RECIPE = """\
about: chats
teachers: {{t: {{model: teacher}}}}
corpus: {{conversations: [{{path: {chats}}}], sequence_length: 128, template: chatml, held_out: 0.2}}
student: {{start: prune_layers, from: t, layers: 2}}
distil: {{losses: [{{kind: forward_kl}}], training: {{max_steps: 2}}}}
precision: fp32
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chats")
    rows = [
        {"messages": [user("Why?"), assistant(f"It rains {number} times. " * (1 + number % 6))]}
        for number in range(120)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:7]]))
    (folder / "chats.yaml").write_text(RECIPE.format(chats=folder / "chats.jsonl"))
    return folder


def recipe_of(folder, *overrides):
    return load_recipe(str(folder / "chats.yaml"), overrides)


CASES = [
    (),
    ("corpus.too_long=cut_right",),
    ("corpus.too_long=split_turns", "corpus.sequence_length=96"),
    ("corpus.layout=packed",),
    ("corpus.teacher={system: Answer briefly.}",),
]


@pytest.mark.parametrize("part", [1000, 40])
@pytest.mark.parametrize("overrides", CASES)
def test_samples_are_counted_or_lie_in_the_interval_of_a_part(folder, overrides, part, monkeypatch):
    monkeypatch.setattr(module, "CONVERSATIONS", part)
    recipe, tokenizer = recipe_of(folder, *overrides), chat_tokenizer()
    found, tally = measured_chats(recipe, recipe.corpus, tokenizer), ChatTally()
    split = split_conversations(recipe.corpus, ChatTally())
    rows = list(training_rows(split.train, tokenizer, recipe.corpus, tally))
    learned = sum(label >= 0 for row in rows for label in row["labels"][1:])
    # Half-filled samples at the end of a part make packing a little less tight.
    room = 0.12 if recipe.corpus.layout == "packed" else 1e-9
    assert found.samples.low * (1 - room) <= len(rows) <= found.samples.high * (1 + room)
    assert found.supervised.low * (1 - room) <= learned <= found.supervised.high * (1 + room)
    assert found.lost["conversations that repeat others"].expected == 7
    dropped = sum(tally.sources["chats.jsonl"].dropped.values())
    told = [count for what, count in found.lost.items() if "left out" in what]
    assert dropped in sum(told, ZERO) * Range.around(1.0, 1 + 1e-9, 1 + 1e-9)


def test_answers_that_a_teacher_will_write_replace_those_of_the_conversations(folder):
    own, written = (recipe_of(folder, *more) for more in ([], ["generate={by: t, max_new_tokens: 10}"]))
    found, before = (measured_chats(one, one.corpus, chat_tokenizer()) for one in (written, own))
    prompt = before.length.expected - before.answer.expected
    assert found.length.expected == pytest.approx(prompt + found.answer.expected)
    assert found.answer.high == 10
    assert found.asked == Range.exactly(len(split_conversations(own.corpus, ChatTally()).train))
    assert found.samples.expected < found.asked.expected == found.samples.high
    assert len(found.lengths) == len(before.lengths)
    assert max(found.lengths) < max(before.lengths)
    assert "assumed" in found.origin
    each = recipe_of(folder, "generate={by: t, max_new_tokens: 10, turns: each}")
    assert measured_chats(each, each.corpus, chat_tokenizer()) == before, "how many turns there are is not known"


def test_conversations_whose_own_answers_are_too_long_are_asked_for_too(folder):
    own = recipe_of(folder)
    lengths = sorted(measured_chats(own, own.corpus, chat_tokenizer()).lengths)
    room = f"corpus.sequence_length={round(lengths[len(lengths) // 2])}"
    short, written = recipe_of(folder, room), recipe_of(folder, room, "generate={by: t, max_new_tokens: 4}")
    found, learned = (measured_chats(one, one.corpus, chat_tokenizer()) for one in (written, short))
    assert found.asked.expected > learned.samples.expected
    assert found.samples.expected == pytest.approx(module.WRITTEN_KEPT.expected * found.asked.expected)


def test_written_answers_have_all_lengths(folder):
    recipe = recipe_of(folder, "generate={by: t, max_new_tokens: 100}")
    found = measured_chats(recipe, recipe.corpus, chat_tokenizer())
    assert found.in_batch(16).expected > found.in_batch(1).expected + 20
    assert found.in_batch(1).expected == pytest.approx(found.length.expected, rel=0.2)


def test_the_longest_sample_has_the_longest_written_answer_and_not_the_longest_own_one(folder):
    own, written = (recipe_of(folder, *more) for more in ([], ["generate={by: t, max_new_tokens: 10}"]))
    found, before = (measured_chats(one, one.corpus, chat_tokenizer()) for one in (written, own))
    assert found.length.high < before.length.high
    assert max(found.lengths) <= found.length.high
    assert found.length.expected <= found.length.high


def test_what_a_plan_does_not_read_is_a_sentence(folder, monkeypatch):
    recipe = recipe_of(folder)
    monkeypatch.setattr(local_files, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="which a plan does not read"):
        measured_chats(recipe, recipe.corpus, chat_tokenizer())


def test_conversations_that_are_all_too_long_are_a_sentence(folder):
    recipe = recipe_of(folder, "corpus.sequence_length=4")
    with pytest.raises(UserError, match=r"`corpus.conversations`"):
        measured_chats(recipe, recipe.corpus, chat_tokenizer())
