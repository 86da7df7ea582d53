"""A run whose teachers teach the rows of their own: captured or live, for text, questions and conversations."""

import json

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

import toy_conversations
import toy_questions
import toy_rows
from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.files.sealed import read_sealed
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from potstill.targets import TargetStore
from potstill.targets.content_keys import batch_keys
from tiny import llama, tokenizer
from toy_training import assert_equal

WHOLE = ["capture={k: 300, bits: 32}", "evaluate.documents=null"]
BY_TAG = "teachers.%s.when={column: tag, equals: %s}"


def ran(folder, recipe, until=None):
    run = Run(folder / "run")
    run_recipe(recipe, run, until=until)
    return run


@pytest.fixture(scope="module")
def text_run(made_once):
    """Text of three kinds, captured, to the end."""

    def fill(folder):
        ran(folder, toy_rows.by_row(folder, *WHOLE))

    return Run(made_once("taught-rows", fill) / "run")


def samples_of(run, stage="corpus", part="train"):
    return load_from_disk(run.path(stage) / part)


def test_each_sample_names_its_teachers_and_holds_rows_of_these_alone(text_run):
    words = {"maths": set(), "chat": set(), "": set()}
    for sample in samples_of(text_run):
        (of,) = sample["teachers"] or [""]
        words[of].add(tokenizer().decode(sample["input_ids"]))
    assert all(words.values())
    # The kind stands before each text of the second file.
    assert any("[talk]" in text for text in words["chat"])
    assert any("[news]" in text for text in words[""])
    assert not any("[news]" in text or "[talk]" in text for text in words["maths"])
    assert not any("[news]" in text for text in words["chat"])
    assert not any("[talk]" in text for text in words[""])


def test_the_corpus_counts_samples_and_tokens_by_teacher(text_run):
    samples, taught = samples_of(text_run), text_run.manifest(Step("corpus"))["summary"]["taught"]
    for name, label in (("maths", "maths"), ("chat", "chat"), (None, "no teacher")):
        own = [one for one in samples if one["teachers"] == ([] if name is None else [name])]
        tokens = sum(len(one["input_ids"]) - 1 for one in own)
        assert taught[label] == {"samples": len(own), "supervised_tokens": tokens}


def test_a_capture_has_the_samples_of_its_teacher_alone_and_says_so(text_run):
    samples, summary = samples_of(text_run), text_run.manifest(Step("capture"))["summary"]
    for name in ("maths", "chat"):
        own = [one for one in samples if name in one["teachers"]]
        store = TargetStore(text_run.path("capture") / name, expect=None)
        assert len(store) == len(own) == summary[name]["samples"]
        assert summary[name]["samples_in_all"] == len(samples)
        store.find(batch_keys(Collator(0)(own)))
        other = next(one for one in samples if name not in one["teachers"])
        with pytest.raises(UserError, match="not among"):
            store.find(batch_keys(Collator(0)([other])))


def test_a_student_learns_the_same_from_live_teachers(text_run, tmp_path):
    live = ran(tmp_path, toy_rows.by_row(tmp_path, "capture=null"), until="distil")
    weights = [load_file(run.path("distil/seed-0") / "student" / "model.safetensors") for run in (text_run, live)]
    assert_equal(*weights, tolerance=5e-5)


def test_the_log_has_each_teacher(text_run):
    lines = (text_run.path("distil/seed-0") / "log.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    counts = ("tokens/maths", "tokens/chat", "tokens_without_teacher")
    assert all(sum(line[name] for name in counts) == 4 * 31 for line in logged)
    assert {name for line in logged for name in line} >= {"forward_kl/maths", "forward_kl/chat"}
    assert not [line for line in logged if line["tokens/maths"] and not line["forward_kl/maths"] > 0]


def test_models_are_compared_with_the_teachers_of_each_item(text_run):
    found = json.loads((text_run.path("evaluate") / "comparison.json").read_text())
    assert found["parts"] == ["maths", "chat", "no teacher"]
    rows = {(row["model"], row["metric"]): row for row in found["rows"]}
    held_out = samples_of(text_run, part="held_out")
    start = text_run.path("student") / "start"
    student = llama(layers=2)
    student.load_state_dict({**student.state_dict(), **load_file(start / "model.safetensors")})
    sums = dict.fromkeys(found["parts"], np.zeros(3))
    for document in held_out:
        ids = torch.tensor([document["input_ids"][:32]])
        if len(document["input_ids"]) > 32:
            continue
        (of,) = document["teachers"] or ["no teacher"]
        with torch.no_grad():
            ours = student(ids).logits[0, :-1].log_softmax(-1)
            teacher = {"maths": llama(0), "chat": llama(1)}.get(of)
            theirs = ours if teacher is None else teacher(ids).logits[0, :-1].log_softmax(-1)
        kl = (theirs.exp() * (theirs - ours)).sum().item()
        nll = -ours.gather(1, ids[0, 1:, None]).sum().item()
        sums[of] = sums[of] + np.array([nll, kl, len(ours)])
    scores = read_sealed(text_run.path("evaluate") / "scores" / "start.json")
    whole = [place for place, one in enumerate(held_out) if len(one["input_ids"]) <= 32]
    for of in found["parts"]:
        own = [place for place in whole if held_out[place]["teachers"] == ([] if of == "no teacher" else [of])]
        if own:
            assert sum(scores["nll"][place] for place in own) == pytest.approx(sums[of][0], rel=1e-4)
            assert sum(scores["kl"][place] for place in own) == pytest.approx(sums[of][1], rel=1e-3, abs=1e-4)
    items = {of: rows["start", f"loss/{of}"]["n"] for of in found["parts"]}
    assert sum(items.values()) == rows["start", "loss"]["n"] == len(held_out)
    assert rows["start", "kl_to_teacher"]["n"] == items["maths"] + items["chat"]
    assert ("start", "kl_to_teacher/no teacher") not in rows
    pairs = {(pair["a"], pair["b"], pair["metric"]) for pair in found["paired"]}
    for metric in ("loss/maths", "kl_to_teacher/chat", "loss/no teacher"):
        assert ("student", "control", metric) in pairs


def test_the_report_tells_each_teacher_apart(text_run):
    page = (text_run.folder / "report" / "index.html").read_text()
    section = page[page.index('aria-labelledby="parts"') :].partition("</section>")[0]
    assert all(name in section for name in ("Loss, maths", "KL to the teacher, chat", "Loss, no teacher"))
    assert "Samples without a teacher are learned by cross-entropy alone." in page


def test_documents_that_are_read_apart_and_padded_rows(tmp_path):
    for layout in ("corpus.attention=document", "corpus.layout=padded"):
        folder = tmp_path / layout
        folder.mkdir()
        samples = samples_of(ran(folder, toy_rows.by_row(folder, layout), until="distil"))
        assert {tuple(one["teachers"]) for one in samples} == {("maths",), ("chat",), ()}


def test_a_stream_s_rows_have_teachers_too(tmp_path):
    toy_rows.save_text(tmp_path)
    for name in ("numbers", "more"):
        (tmp_path / f"{name}-set").mkdir()
        (tmp_path / f"{name}.jsonl").rename(tmp_path / f"{name}-set" / "train.jsonl")
    sources = [{"dataset": str(tmp_path / f"{name}-set"), "stream": True} for name in ("numbers", "more")]
    when = json.dumps({"source": sources[0]["dataset"]})
    given = ("corpus.train_tokens=3000", f"teachers.maths.when={when}")
    samples = samples_of(ran(tmp_path, toy_rows.by_row(tmp_path, *given, sources=sources), until="corpus"))
    assert {tuple(one["teachers"]) for one in samples} == {("maths",), ("chat",), ()}


def test_a_separate_held_out_text_has_teachers_by_its_own_rows(tmp_path):
    sources = toy_rows.save_text(tmp_path)
    held_out = json.dumps({"sources": sources[1:], "sequences": 6})
    run = ran(tmp_path, toy_rows.by_row(tmp_path, f"corpus.held_out={held_out}", "teachers.chat.when=null"), "corpus")
    assert {tuple(one["teachers"]) for one in samples_of(run, part="held_out")} == {("chat",)}
    assert {tuple(one["teachers"]) for one in samples_of(run)} == {("maths", "chat")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("teachers.chat.when={column: sort, equals: talk}",),
            "`teachers.chat.when` asks for the column 'sort', and the columns of the 130 rows are 'text', 'kind'; "
            "correct it, or remove the teacher",
        ),
        (
            ("teachers.chat.when={column: kind, equals: Talk}",),
            "`teachers.chat.when` matches none of the 130 rows; the values of 'kind' are 'numbers' (50), 'talk' (40), "
            "'news' (40); correct it, or remove the teacher",
        ),
        (
            ("distil.losses=[{kind: forward_kl}]",),
            "samples have no teacher and would teach nothing; add cross_entropy, or a teacher without `when`",
        ),
        (
            ("corpus.train_tokens=31",),
            ".when` matches rows, but they are in none of the 1 samples to train on; correct it,",
        ),
    ],
)
def test_rules_that_teach_nothing_stop_the_corpus_in_one_sentence(tmp_path, more, message):
    with pytest.raises(UserError) as error:
        ran(tmp_path, toy_rows.by_row(tmp_path, *more), until="corpus")
    assert message in str(error.value)
    assert not (tmp_path / "run" / "corpus" / "train").exists()


def test_losses_without_cross_entropy_are_enough_where_every_row_has_a_teacher(tmp_path):
    more = ("distil.losses=[{kind: forward_kl}]", "teachers.chat.when={column: kind, equals: [talk, news]}")
    assert ran(tmp_path, toy_rows.by_row(tmp_path, *more), until="distil").path("distil/seed-0").exists()


def second_teacher(folder, save):
    """The overrides by which a recipe of one teacher has another one, for rows with the tag 1."""
    save(folder / "u")
    teachers = {"t": {"model": str(folder / "teacher")}, "u": {"model": str(folder / "u")}}
    teachers["t"]["when"] = {"column": "tag", "equals": 0}
    teachers["u"]["when"] = {"column": "tag", "equals": [1, 2]}
    return f"teachers={json.dumps(teachers)}"


def tagged(rows):
    """A fourth of the rows has the tag 3, which has no teacher."""
    return [{**row, "tag": number % 4} for number, row in enumerate(rows)]


def test_questions(tmp_path):
    toy_questions.save(tmp_path, tagged(toy_questions.rows()))
    toy_questions.recipe(tmp_path)
    two = second_teacher(tmp_path, lambda path: llama(5, max_position_embeddings=256).save_pretrained(path))
    tokenizer().save_pretrained(tmp_path / "u")
    recipe = toy_questions.recipe(tmp_path, two, "experiments={base: {}, ground-truth: {}}", "seeds=[0]")
    run = ran(tmp_path, recipe, until="evaluate")
    samples = samples_of(run, "strategies/base/own")
    assert {tuple(one["teachers"]) for one in samples} == {("t",), ("u",), ()}
    store = TargetStore(run.path("capture/base/own") / "t", expect=None)
    assert len(store) == sum(one["teachers"] == ["t"] for one in samples)
    metrics = {row["metric"] for row in json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]}
    assert metrics >= {"accuracy/u", "loss/u"}


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_conversations(tmp_path, layout):
    file = toy_conversations.save_talks(tmp_path)
    lines = tagged(map(json.loads, file.read_text().splitlines()))
    toy_conversations.recipe(tmp_path)
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))
    two = second_teacher(tmp_path, lambda path: toy_conversations.teacher(path, layers=3))
    more = ("answers.max_new_tokens=4", "capture={}", "corpus.held_out=0.5") if layout == "padded" else ()
    recipe = toy_conversations.recipe(tmp_path, two, f"corpus.layout={layout}", *more)
    run = ran(tmp_path, recipe, until="evaluate" if layout == "padded" else "distil")
    assert {tuple(one["teachers"]) for one in samples_of(run)} == {("t",), ("u",), ()}
    if layout == "padded":
        found = json.loads((run.path("evaluate") / "comparison.json").read_text())
        metrics = {row["metric"]: row["n"] for row in found["rows"]}
        assert metrics["kl_to_teacher"] < metrics["loss"]
        assert {"loss/u", "kl_to_teacher/u"} <= metrics.keys()


def test_answers_that_one_teacher_writes_are_taught_by_the_teachers_of_their_rows(tmp_path):
    file = toy_conversations.save_talks(tmp_path)
    lines = tagged(map(json.loads, file.read_text().splitlines()))
    toy_conversations.recipe(tmp_path)
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))
    two = second_teacher(tmp_path, lambda path: toy_conversations.teacher(path, layers=3))
    writes = "generate={by: t, max_new_tokens: 24, samples: 6, temperature: 1.0, batch_size: 8}"
    run = ran(tmp_path, toy_conversations.recipe(tmp_path, two, writes, "capture={k: 20}"), until="distil")
    samples, captured = samples_of(run, "generate"), run.manifest(Step("capture"))["summary"]
    assert {tuple(one["teachers"]) for one in samples} == {("t",), ("u",), ()}
    for name in ("t", "u"):
        own = [one for one in samples if name in one["teachers"]]
        assert captured[name]["samples"] == len(own) < captured[name]["samples_in_all"] == len(samples)
        assert run.manifest(Step("generate"))["summary"]["taught"][name]["samples"] == len(own)
