"""Conversations in a recipe: settings that mean nothing or contradict each other are refused by their key."""

import pytest
from pydantic import ValidationError

from potstill.errors import UserError
from potstill.pipeline.file_fingerprints import named_sources
from potstill.recipe import load_recipe
from potstill.recipe.conversations import ChatSettings, Conversations

RECIPE = """\
about: chats
teachers: {{t: {{model: somewhere/teacher}}}}
corpus: {corpus}
student: {{start: prune_layers, from: t, layers: 2}}
distil: {{losses: [{{kind: forward_kl}}], training: {{max_steps: 2}}}}
{more}
"""
CORPUS = "{conversations: [{path: chats.jsonl}], sequence_length: 64, %s}"


def load(folder, corpus="", more=""):
    file = folder / "chats.yaml"
    file.write_text(RECIPE.format(corpus=CORPUS % corpus, more=more))
    return load_recipe(str(file))


def test_a_recipe_of_conversations(tmp_path):
    recipe = load(tmp_path, "held_out: {conversations: [{dataset: some/chats, split: test}]}")
    assert recipe.chats
    assert not recipe.asks
    assert isinstance(recipe.corpus, Conversations)
    assert recipe.corpus.learn == "all"
    keys = [key for key, _ in named_sources(recipe.corpus)]
    assert keys == ["corpus.conversations.0", "corpus.held_out.conversations.0"]


@pytest.mark.parametrize(
    ("corpus", "why"),
    [
        ("learn: first", r"`corpus.learn`: must be 'all' or 'last', not 'first'"),
        ("too_long: cut", r"`corpus.too_long`: must be 'drop', 'cut_left', 'cut_right' or 'split_turns'"),
        ("on_bad_row: skip", r"`corpus.on_bad_row`: must be 'refuse' or 'drop'"),
        ("date: yesterday", r"`corpus.date`: 'yesterday' is no date; give one such as '2024-07-26'"),
        ("reasoning: some", r"`corpus.reasoning`: must be true or false"),
        ("template_kwargs: {tools: []}", r"`corpus.template_kwargs`: `tools` is set for each conversation"),
        ("template_kwargs: {max_length: 9}", r"`corpus.template_kwargs`: `max_length` is set for each"),
        ("cleaning: {}", r"`corpus.cleaning`: unknown key"),
        ("held_out: {conversations: []}", r"`corpus.held_out.conversations`: is empty"),
        (
            "teacher: {user: '{{ answer }}'}",
            r"`corpus.teacher.user`: uses the field `answer`, and the fields are quest",
        ),
        ("teacher: {system: '{{ question }}'}", r"`corpus.teacher.system`: uses the field `question`, and the fields"),
        ("teacher: {user: '{{ question'}", r"`corpus.teacher.user`: is not a valid Jinja template"),
        ("held_out: {conversations: [{dataset: d, stream: true}]}", r"`corpus.held_out`: may not have `stream: true`"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(tmp_path, corpus, why):
    with pytest.raises(UserError, match=why):
        load(tmp_path, corpus)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{}", r"`corpus.conversations.0`: must have one of the keys `package`, `path`, `data` or `dataset`"),
        ("{path: a, keys: {from: who}}", r"`corpus.conversations.0.format`: is missing, and `keys` needs it"),
        ("{path: a, format: sharegpt, keys: {role: who}}", r"'role' is no key of the format `sharegpt`; its keys are"),
        ("{path: a, format: openai}", r"`corpus.conversations.0.format`: must be 'messages'"),
        ("{path: a, roles: {narrator: teller}}", r"`corpus.conversations.0.roles.narrator`: must be 'system'"),
        ("{path: a, stream: true}", r"`corpus.conversations.0.stream`: unknown key"),
        ("{dataset: a, stream: true}", r"`corpus.train`: is missing, and a stream has no end"),
        ("{dataset: a, stream: true}, {path: a}", r"`corpus.conversations`: must all have `stream: true`, or none"),
    ],
)
def test_a_wrong_source_is_refused_by_its_key(tmp_path, source, why):
    file = tmp_path / "chats.yaml"
    corpus = f"{{conversations: [{source}], sequence_length: 64}}"
    file.write_text(RECIPE.format(corpus=corpus, more=""))
    with pytest.raises(UserError, match=why):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("answers: {strategy: teacher}", "`answers.strategy` needs questions, and `corpus` has none"),
    ],
)
def test_sections_of_questions_are_refused(tmp_path, more, why):
    with pytest.raises(UserError, match=why):
        load(tmp_path, more=more)


def test_a_teacher_that_writes_is_not_shown_what_it_writes(tmp_path):
    with pytest.raises(UserError, match=r"`corpus.teacher.user` shows the `reference`, but with `generate`"):
        load(tmp_path, "teacher: {user: '{{ question }} {{ reference }}'}", "generate: {by: t}")
    load(tmp_path, "teacher: {user: '{{ question }} Think.'}", "generate: {by: t}")


def test_llama_cpp_cannot_keep_packed_conversations_apart(tmp_path):
    file = tmp_path / "chats.yaml"
    text = RECIPE.format(corpus=CORPUS % "layout: packed", more="")
    file.write_text(text.replace("{model: somewhere/teacher}", "{model: x/y, gguf: z.gguf, engine: llama_cpp}"))
    with pytest.raises(UserError, match=r"`corpus.layout: packed`: `teachers.t.engine: llama_cpp` reads"):
        load_recipe(str(file))


def test_settings_alone_are_enough_for_python():
    assert ChatSettings(sequence_length=64).too_long == "drop"
    with pytest.raises(ValidationError):
        ChatSettings(sequence_length=1)
