import json

import pytest

import toy_conversations
import toy_questions
from potstill.errors import UserError
from potstill.recipe.across_tokenizers import (
    CROSSING,
    crossing_loss,
    keeps_spans,
    remedy_without_crossing_loss,
)
from tiny import llama, save_corpus, save_model, toy_recipe

TOKENIZER = 'tokenizer={"vocab_size": 400}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("across")
    save_corpus(folder / "text.jsonl")
    save_model(llama(5, layers=2), folder / "student")
    return folder


def losses(*kinds):
    return f"distil.losses={json.dumps([{'kind': kind} for kind in kinds])}"


def recipe(folder, *more):
    student = {"start": "scratch", "config": {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32}}
    given = ["capture=null", TOKENIZER, f"student={json.dumps(student)}", losses("alm", "cross_entropy")]
    return toy_recipe(folder, *given, *more)


@pytest.mark.parametrize("kind", CROSSING)
def test_a_loss_across_tokenizers_is_one_of_a_recipe(folder, kind):
    found = recipe(folder, losses(kind, "cross_entropy"))
    assert crossing_loss(found) == kind
    assert crossing_loss(recipe(folder, losses("forward_kl"))) is None


def test_without_such_a_loss_it_is_said_what_one_would_need(folder):
    kl = losses("forward_kl")
    assert remedy_without_crossing_loss(recipe(folder, kl)) == "use models of one tokenizer, or the loss `alm`"
    told = remedy_without_crossing_loss(toy_recipe(folder, kl))
    assert told.endswith("with a `tokenizer` of the student's own and a student that is not made from a teacher")
    own = {"config": {"model_type": "gpt2"}, "training": {"max_steps": 1}}
    told = remedy_without_crossing_loss(recipe(folder, kl, f"pretrain={json.dumps({'own': own})}"))
    assert told == "use models of one tokenizer, or remove `pretrain` and use the loss `alm`"


def test_spans_may_be_captured(folder):
    assert keeps_spans(recipe(folder, "capture={keep: spans}"))
    assert not keeps_spans(recipe(folder))
    assert recipe(folder, "capture={keep: spans, store: elsewhere/capture}").capture.store == "elsewhere/capture"


@pytest.mark.parametrize("api", ["vllm", "sglang", "potstill"])
def test_spans_of_a_served_teacher_may_be_captured(folder, api):
    served = {"server": "http://host/v1", "api": api} | ({} if api == "potstill" else {"model": "m"})
    assert keeps_spans(recipe(folder, f"teachers={json.dumps({'big': served})}", "capture={keep: spans}"))


def test_a_student_of_an_experiment_may_be_across(folder):
    experiments = {"a": {"losses": [{"kind": "uld"}]}, "b": {}}
    assert crossing_loss(recipe(folder, f"experiments={json.dumps(experiments)}")) == "uld"


def test_several_teachers_may_be_across_each_with_its_rows(folder):
    rule = json.dumps({"source": str(folder / "text.jsonl")})
    found = recipe(folder, f'teachers.other={{"model": "x", "when": {rule}}}')
    assert crossing_loss(found) == "alm"


def test_a_student_may_write_for_a_teacher_of_another_tokenizer(folder):
    found = recipe(folder, "distil.on_policy={share: 0.5, beginning: 8}")
    assert found.on_policy_of(None).share == 0.5


REFUSED = {
    "a divergence": ([losses("alm", "jsd")], r"and `jsd` compares token by token.*use `alm` in the place of `jsd`"),
    "layers": ([losses("alm", "hidden_match")], "and `hidden_match` compares token by token"),
    "a student's own divergence": (
        [f"experiments={json.dumps({'a': {'losses': [{'kind': 'forward_kl'}]}, 'b': {}})}"],
        "and `forward_kl` compares token by token",
    ),
    "the teacher's tokenizer": (["tokenizer=null"], "without `tokenizer` the student has its teacher's.*`forward_kl`"),
    "logits of several teachers": (
        ['teachers.other={"model": "x"}', "distil.mix=logits"],
        "of several such teachers the losses are averaged; remove `distil.mix: logits`",
    ),
    "a capture": (["capture={}"], "`capture.keep: top_k` keeps one tokenizer's tokens; use `keep: spans`"),
    "hidden states": (["capture={keep: hidden}"], "`capture.keep: hidden` keeps one tokenizer's tokens"),
    "spans of whole distributions": (
        ["capture={keep: spans}", losses("alm", "uld")],
        "`capture.keep: spans` is read by the loss `alm` alone, and `uld` needs whole distributions; use `alm`",
    ),
    "spans of one tokenizer": (
        ["capture={keep: spans}", losses("forward_kl"), "tokenizer=null"],
        "`capture.keep: spans` is read by the loss `alm` alone, which none of the losses is; use `keep: top_k`",
    ),
    "spans of written samples": (
        ["capture={keep: spans}", "distil.on_policy={share: 0.5, beginning: 8}"],
        "`capture.keep: spans` knows no text that the student writes",
    ),
    "a policy gradient": (
        ["distil.on_policy={share: 0.5, beginning: 8, losses: [{kind: policy_gradient}]}"],
        "`policy_gradient` of `on_policy.losses` needs .*remove `on_policy.losses`",
    ),
    "a server": (
        ['teachers={"big": {"server": "http://host/v1", "model": "m", "api": "vllm"}}'],
        "must tell its whole distributions.*`potstill serve`",
    ),
    "spans from a server that only writes": (
        [
            'teachers={"big": {"server": "http://host/v1", "model": "m", "api": "llama_cpp"}}',
            "capture={keep: spans}",
        ],
        "tells only the distributions of what it writes itself",
    ),
    "a pruned teacher": (
        ['student={"start": "prune_layers", "from": "smollm2", "layers": 2}'],
        "`student.from: smollm2` gives the student the teacher's tokens.*`start: scratch`",
    ),
    "a search of what has no setting": (
        [losses("alm", "uld", "cross_entropy"), "corpus.validation=4", "search={share: [0.1, 0.9]}"],
        "`search` needs one cross_entropy and one divergence",
    ),
    "a search for a temperature": (
        ["corpus.validation=4", "search={temperatures: [1, 2]}"],
        "`search.temperatures`: `alm` has no temperature; search `share` alone",
    ),
    "a temperature": ([f"distil.losses={json.dumps([{'kind': 'alm', 'temperature': 2}])}"], "temperature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_teacher_of_another_tokenizer_cannot_be_asked_is_refused(folder, name):
    given, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        recipe(folder, *given)


def test_spans_of_several_teachers_may_be_captured(folder):
    assert keeps_spans(recipe(folder, "capture={keep: spans}", 'teachers.other={"model": "x"}'))


SEARCH = "search={share: [0.1, 0.9]}"


@pytest.mark.parametrize("kind", CROSSING)
def test_the_share_of_a_loss_across_tokenizers_may_be_searched(folder, kind):
    assert recipe(folder, losses(kind, "cross_entropy"), "corpus.validation=4", SEARCH).is_searched(None)


def of_questions(folder, *more):
    student = {"start": "scratch", "config": {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32}}
    given = ["capture=null", TOKENIZER, f"student={json.dumps(student)}", losses("alm", "cross_entropy")]
    return toy_questions.recipe(folder, *given, "experiments={base: {}, ground-truth: {}}", *more)


def test_questions_may_be_asked_of_a_teacher_of_another_tokenizer(tmp_path):
    assert crossing_loss(of_questions(tmp_path)) == "alm"
    assert keeps_spans(of_questions(tmp_path, "capture={keep: spans}"))
    assert of_questions(tmp_path, "generate={by: t}").generate.by == "t"
    assert of_questions(tmp_path, "distil.on_policy={share: 0.5}").on_policy_of("base").share == 0.5


QUESTIONS_REFUSED = {
    "a placebo": (
        ["experiments.placebo={targets: another_question}"],
        "`experiments.placebo.targets: another_question` has none; remove the experiment 'placebo'",
    ),
}


@pytest.mark.parametrize("name", QUESTIONS_REFUSED)
def test_what_questions_cannot_ask_of_a_teacher_of_another_tokenizer_is_refused(tmp_path, name):
    more, message = QUESTIONS_REFUSED[name]
    with pytest.raises(UserError, match=message):
        of_questions(tmp_path, *more)


CONVERSATIONS_REFUSED = {
    "a reading": (["corpus.teacher={system: Be kind.}"], "remove `corpus.teacher`"),
    "packed samples": (["corpus.layout=packed"], "use `corpus.layout: padded`"),
    "split turns": (["corpus.too_long=split_turns"], "use `drop` or `cut_right`"),
    "a teacher's turns": (["generate={by: t}"], "and `generate` writes turns for one tokenizer"),
    "strategies": (
        ["strategies.mine={teacher: {system: Be kind.}}", "experiments={a: {strategy: mine}}"],
        "`strategies` are for one tokenizer",
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS_REFUSED)
def test_what_conversations_cannot_ask_of_a_teacher_of_another_tokenizer_is_refused(tmp_path, name):
    student = {"start": "scratch", "config": {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32}}
    given = [TOKENIZER, f"student={json.dumps(student)}", losses("alm", "cross_entropy"), "corpus.template=plain"]
    assert crossing_loss(toy_conversations.recipe(tmp_path, *given)) == "alm"
    assert toy_conversations.recipe(tmp_path, *given, "distil.on_policy={share: 0.5}").on_policy_of(None).share == 0.5
    more, message = CONVERSATIONS_REFUSED[name]
    with pytest.raises(UserError, match=message):
        toy_conversations.recipe(tmp_path, *given, *more)


def test_a_teacher_that_the_run_trains_is_refused(folder):
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32}
    with pytest.raises(UserError, match=r"`pretrain.big` is trained with the student's own"):
        recipe(folder, f"pretrain={json.dumps({'big': {'config': config}})}", "teachers={}")
