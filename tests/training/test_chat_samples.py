"""Conversations in a trainer's data sets: rendered and masked as a recipe does it, and refused by one sentence."""

import tempfile
from copy import deepcopy

import pytest
from datasets import Dataset
from transformers import TrainingArguments

import toy_chat
from potstill import DistilTrainer
from potstill.data.conversations.packing import packed_conversations
from potstill.data.conversations.samples import samples
from potstill.errors import UserError
from potstill.training.chat_samples import are_chats, chat_samples, chat_settings
from tiny import llama
from toy_chat import assistant, chat_tokenizer, conversation, settings, user
from toy_training import assert_equal, weights

TURNS = [user("Why?"), assistant("It rains."), user("And now?"), assistant("It snows.")]
LONG = [user("Why? " * 80), assistant("It rains.")]
ROWS = [{"messages": TURNS}, {"messages": [user("So?"), assistant("Go.")]}]


@pytest.fixture(scope="module")
def tokenizer():
    made = deepcopy(chat_tokenizer())
    made.chat_template = toy_chat.template("chatml").text
    return made


def trainer(folder, tokenizer, **given):
    model = llama(vocab_size=len(tokenizer), max_position_embeddings=256)
    args = {"per_device_train_batch_size": 2, "max_steps": 1, "report_to": "none", "save_strategy": "no"}
    made = TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **args)
    return DistilTrainer(model, made, teacher=deepcopy(model), processing_class=tokenizer, **given)


def as_lists(rows):
    return [{name: list(values) for name, values in row.items()} for row in rows]


def from_parquet(rows):
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_list(rows).to_parquet(f"{folder}/rows.parquet")
        return Dataset.from_parquet(f"{folder}/rows.parquet", keep_in_memory=True)


@pytest.mark.parametrize("make", [list, Dataset.from_list, from_parquet])
@pytest.mark.parametrize("more", [{}, {"learn": "last"}, {"template": "llama-3"}])
def test_samples_are_those_of_a_recipe(tokenizer, make, more):
    recipe = settings(**more)
    expected = samples([conversation(*row["messages"]) for row in ROWS], tokenizer, recipe)
    found = chat_samples(make(ROWS), tokenizer, chat_settings(more, 4096), "train_dataset")
    assert as_lists(found) == [{"input_ids": one.input_ids, "labels": one.labels} for one in expected]


def test_a_trainer_learns_and_evaluates_conversations(tmp_path, tokenizer):
    rows = Dataset.from_list(ROWS)
    chats = trainer(tmp_path, tokenizer, train_dataset=rows, eval_dataset={"own": rows})
    tokens = chat_samples(ROWS, tokenizer, chat_settings(None, 256), "train_dataset")
    plain = trainer(tmp_path, tokenizer, train_dataset=as_lists(tokens), eval_dataset={"own": as_lists(tokens)})
    assert chats.evaluate()["eval_own_loss"] == plain.evaluate()["eval_own_loss"]
    assert chats.evaluate(rows)["eval_loss"] == chats.evaluate()["eval_own_loss"]
    assert chats.train().training_loss == plain.train().training_loss


def test_packed_conversations_teach_what_they_teach_alone(tmp_path, tokenizer):
    alone = list(samples([conversation(*row["messages"]) for row in ROWS * 2], tokenizer, settings()))
    apart = [{"input_ids": one.input_ids, "labels": one.labels} for one in alone]
    together = [vars(one) for one in packed_conversations(alone, 128)]
    assert max(len(row["documents"]) for row in together) > 1
    trained = []
    for rows in (apart, together):
        student, teacher = (llama(seed=seed, vocab_size=len(tokenizer), max_position_embeddings=256) for seed in (0, 1))
        fields = {"max_steps": 1, "report_to": "none", "save_strategy": "no", "learning_rate": 0.1, "optim": "sgd"}
        fields |= {"per_device_train_batch_size": len(rows), "disable_tqdm": True, "use_cpu": True}
        args = TrainingArguments(str(tmp_path), **fields)
        DistilTrainer(student, args, teacher=teacher, processing_class=tokenizer, train_dataset=rows).train()
        trained.append(weights(student))
    assert_equal(*trained, tolerance=1e-5)
    start = llama(seed=0, vocab_size=len(tokenizer), max_position_embeddings=256)
    assert max((weights(start)[name] - trained[0][name]).abs().max() for name in trained[0]) > 1e-3


def test_a_template_that_rewrites_history_gives_a_sample_for_each_turn(tokenizer):
    turns = [user("Why?"), assistant("It rains.", reasoning_content="Clouds."), *TURNS[2:]]
    found = chat_samples([{"messages": turns}], tokenizer, chat_settings({"template": "qwen"}, 4096), "train_dataset")
    assert len(found) == 2


def test_what_is_left_out_is_said(tokenizer, capsys):
    rows = [*ROWS, {"messages": LONG}, {"messages": [user("Why?")]}]
    found = chat_samples(rows, tokenizer, chat_settings({"on_bad_row": "drop"}, 100), "train_dataset")
    assert len(found) == 2
    said = capsys.readouterr().out
    assert "train_dataset: 2 samples of 4 conversations" in said
    assert "1 left out: longer than 100 tokens" in said
    assert "1 left out: has no turn of the assistant" in said


@pytest.mark.parametrize(
    ("row", "given", "message"),
    [
        (
            {"messages": [user("Why?")]},
            {},
            r"train_dataset:1: has no turn of the assistant.*conversations=\{'on_bad_row'",
        ),
        ({"messages": TURNS, "weight": 0.5}, {}, "a column `weight`, which is not read"),
        ({"messages": TURNS, "chat_template_kwargs": {}}, {}, "a column `chat_template_kwargs`, which is not read"),
        ({"messages": TURNS, "assistant_masks": [1]}, {}, "a column `assistant_masks`, which is not read"),
        ({"messages": TURNS, "images": ["a.png"]}, {}, "`images`, and only text is supported"),
        ({"messages": LONG}, {"sequence_length": 64}, "no sample of them is left .1 left out: longer than 64 tokens"),
        ({"messages": TURNS}, {"lern": "last"}, "`conversations`: `lern`: unknown key; did you mean `learn`"),
        ({"messages": TURNS}, {"learn": "first"}, "`conversations`: `learn`: must be 'all' or 'last'"),
        ({"messages": TURNS}, {"template": "chatmll"}, "'chatmll' is neither chatml"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_the_training(tmp_path, tokenizer, row, given, message):
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, tokenizer, train_dataset=[row], conversations=given)


def test_a_tokenizer_is_needed_with_a_template(tmp_path):
    with pytest.raises(UserError, match="`train_dataset` has conversations; give the tokenizer as `processing_class`"):
        chat_samples(ROWS, None, chat_settings(None, 64), "train_dataset")
    with pytest.raises(UserError, match=r"no chat template; name one in `conversations={'template': …}`"):
        trainer(tmp_path, chat_tokenizer(), train_dataset=ROWS)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": TURNS}, True),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, True),
        ({"prompt": [user("Why?")], "completion": [assistant("So.")]}, True),
        ({"instruction": "Why?", "output": "So."}, True),
        ({"prompt": "Why?", "completion": " So."}, False),
        ({"text": "Why?"}, False),
        ({"input_ids": [1, 2], "messages": TURNS}, False),
    ],
)
def test_rows_of_text_and_of_tokens_are_no_conversations(row, expected):
    assert are_chats([row], "train_dataset") == expected
