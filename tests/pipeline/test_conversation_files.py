"""The samples and the audit of conversations in a step's folder."""

import json

import pytest
from datasets import load_from_disk

import toy_chat
from potstill.data.conversations.tally import ChatTally
from potstill.data.labels import IGNORE_INDEX
from potstill.pipeline.conversation_files import AUDIT, audit_figures, save_audit, save_samples
from potstill.recipe.conversations import Conversations
from toy_chat import CASES, chat_tokenizer

GIVEN = {"conversations": [{"path": "chats.jsonl"}], "template": "chatml", "sequence_length": 200}


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_samples_and_their_audit_agree(tmp_path, layout):
    corpus, tally = Conversations.model_validate({**GIVEN, "layout": layout}), ChatTally()
    cases = [
        CASES["plain"],
        CASES["turns"],
        toy_chat.conversation(toy_chat.user("Why? " * 99), toy_chat.assistant("So.")),
    ]
    written = save_samples(tmp_path / "train", cases, chat_tokenizer(), corpus, tally)
    rows = load_from_disk(tmp_path / "train").to_list()
    assert written == len(rows) == (1 if layout == "packed" else 2)
    assert all(("documents" in row) == (layout == "packed") for row in rows)
    figures = audit_figures(save_audit(tmp_path, tally, chat_tokenizer(), corpus))
    assert figures["train_tokens"] == sum(len(row["input_ids"]) for row in rows)
    assert figures["supervised_tokens"] == sum(label != IGNORE_INDEX for row in rows for label in row["labels"])
    assert figures["dropped_rows"] == 1
    assert all((tmp_path / name).is_file() for name in AUDIT)
    assert json.loads((tmp_path / "audit.json").read_text())["digest"] == tally.template_digest
