"""The corpus of conversations: its samples, what is held out, the audit, and what the teachers read."""

import json

import pytest
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoTokenizer

from potstill.cli.show_corpus import show_conversations
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe
from tiny import llama, padded
from toy_chat import assistant, chat_tokenizer, user

RECIPE = """\
about: chats
teachers: {{t: {{model: {teacher}}}}}
corpus: {{conversations: [{{path: {chats}}}], sequence_length: 128, template: chatml, held_out: 0.3}}
student: {{start: prune_layers, from: t, layers: 2}}
distil: {{losses: [{{kind: forward_kl}}], training: {{max_steps: 2}}}}
precision: fp32
"""


def rows(count=24):
    talk = [user("Why?"), assistant("It rains."), user("And now?")]
    return [{"messages": [*talk, assistant(f"It snows {number} times.")]} for number in range(count)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    padded(llama(max_position_embeddings=256), len(chat_tokenizer())).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def make(tmp_path, teacher):
    """Makes the corpus of some rows, and returns its folder."""

    def made(chats, *overrides):
        file = tmp_path / "chats.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in chats))
        (tmp_path / "chats.yaml").write_text(RECIPE.format(teacher=teacher, chats=file))
        run = Run(tmp_path / "run")
        run_recipe(load_recipe(str(tmp_path / "chats.yaml"), overrides), run, until="corpus")
        return run.path("corpus")

    return made


def distance(one, other):
    return float((one - other).abs().mean())


def learned(row, side=""):
    pairs = zip(row[f"{side}input_ids"], row[f"{side}labels"], strict=True)
    return chat_tokenizer().decode([token for token, label in pairs if label != IGNORE_INDEX])


def test_the_assistants_turns_are_learned_and_whole_conversations_are_held_out(make):
    folder = make(rows(), "corpus.validation=4")
    train, held_out = load_from_disk(folder / "train"), load_from_disk(folder / "held_out")
    assert all(learned(row).startswith("It rains.<|im_end|>It snows ") for row in train)
    assert len(train) + len(held_out) + 4 == 24
    assert len(load_from_disk(folder / "validation")) == 4
    assert not set(held_out["messages"]) & set(load_from_disk(folder / "conversations")["messages"])
    assert len(set(held_out["id"])) == len(held_out)
    assert read_json(folder / "audit.json")["sources"][0]["samples"] == len(train)
    assert "It rains." in (folder / "audit.html").read_text()


def test_whole_conversations_fill_packed_samples(make):
    train = load_from_disk(make(rows(), "corpus.layout=packed", "corpus.sequence_length=160") / "train")
    assert all(sum(row["documents"]) == len(row["input_ids"]) <= 160 for row in train)
    assert max(len(row["documents"]) for row in train) > 1


def test_the_teacher_reads_a_system_prompt_of_its_own_and_teaches_the_same_tokens(make):
    folder = make(rows(), 'corpus.teacher={"system": "You know the weather.", "sequence_length": 192}')
    for row in load_from_disk(folder / "train"):
        assert "You know" in chat_tokenizer().decode(row["teacher_input_ids"])
        assert "You know" not in chat_tokenizer().decode(row["input_ids"])
        assert learned(row) == learned(row, "teacher_")


def test_what_only_the_teacher_has_no_room_for_is_counted(make):
    long = {"messages": [user("Why?"), assistant("It rains. " * 12)]}
    folder = make([*rows(), long], 'corpus.teacher={"system": "You know the weather in every town and village."}')
    audit = read_json(folder / "audit.json")["sources"][0]
    stored = len(load_from_disk(folder / "train")) + len(load_from_disk(folder / "held_out"))
    assert stored + sum(audit["dropped"].values()) == 25


def test_a_bad_row_is_refused_with_its_place_or_dropped_and_counted(make):
    bad = {"messages": [user("Why?"), user("Why?")]}
    with pytest.raises(UserError, match=r"chats.jsonl:3: .*`corpus.on_bad_row: drop`"):
        make([*rows(2), bad, *rows()])
    audit = read_json(make([*rows(), bad], "corpus.on_bad_row=drop") / "audit.json")
    assert sum(audit["sources"][0]["dropped"].values()) == 1


def test_conversations_that_are_all_too_long_leave_nothing_to_train_on(make):
    with pytest.raises(UserError, match=r"leave 0 samples to train on .* `corpus.sequence_length: 16`"):
        make(rows(), "corpus.sequence_length=16")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (['corpus.teacher={"system": "s"}', "corpus.layout=packed"], "`corpus.teacher`: needs `layout: padded`"),
        (['corpus.teacher={"system": "s"}', "corpus.too_long=cut_left"], "`corpus.teacher`: needs `too_long: drop`"),
    ],
)
def test_what_two_readers_cannot_share_is_refused(make, settings, why):
    with pytest.raises(UserError, match=why):
        make(rows(), *settings)


def test_the_terminal_shows_what_is_learned(make, tmp_path, capsys):
    make(rows())
    show_conversations(Run(tmp_path / "run"), 1)
    assert "⟦It rains.<|im_end|>⟧" in capsys.readouterr().out


def test_only_conversations_are_shown(tmp_path):
    with pytest.raises(UserError, match="this recipe has none"):
        show_conversations(Run(tmp_path), 1)


def test_students_learn_the_same_captured_and_live_and_from_a_teacher_that_reads_more(make, tmp_path, teacher):
    make(rows())
    students = {}
    system = 'corpus.teacher={"system": "You know the weather.", "sequence_length": 192}'
    kept = 'capture={"k": 300, "bits": 16}'
    for name, more in {"live": [], "captured": [kept], "more": [system], "both": [system, kept]}.items():
        run = Run(tmp_path / name)
        run_recipe(load_recipe(str(tmp_path / "chats.yaml"), more), run, until="distil")
        students[name] = load_file(run.path("distil") / "seed-0" / "student" / "model.safetensors")["lm_head.weight"]
    kept_with = AutoTokenizer.from_pretrained(run.path("distil") / "seed-0" / "student")
    assert "<|im_start|>" in kept_with.chat_template, "who uses the student needs its template"
    apart = distance(students["more"], students["live"])
    assert distance(students["captured"], students["live"]) < apart / 20
    assert distance(students["both"], students["more"]) < apart / 20
