"""A whole run whose teacher has another tokenizer: corpus, training, and a comparison in bits per byte."""

import json
import math
import re

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import AutoTokenizer

from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.step import Step
from tiny import _config, documents, llama, save_corpus, save_model, tokenizer, toy_recipe
from tokenizer_zoo import folding

pytestmark = pytest.mark.slow

LENGTH = 96
"""Long enough for a passage to be shown whole."""
DOCUMENTS = 20
"""The held-out documents that are read: enough for some to be harder than a typical one."""


def recipe(folder, *more):
    # The teacher has twice as many tokens as the student.
    save_model(llama(0, max_position_embeddings=256), folder / "teacher-smollm2")
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    losses = [{"kind": "alm", "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}]
    given = {"capture": None, "tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": losses}
    given["corpus.sequence_length"] = LENGTH
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items()), *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = Run(folder / "run")
    settings = ("distil.training.max_steps=2", f"evaluate.documents={DOCUMENTS}")
    run_recipe(recipe(folder, *settings), run, until="evaluate")
    return run


def rows(run):
    found = read_json(run.path("evaluate") / "comparison.json")["rows"]
    return {(row["model"], row["metric"]): row["value"] for row in found}


def test_only_bits_per_byte_compare_the_teacher(run):
    found = rows(run)
    assert {metric for model, metric in found if model == "teacher"} == {"bits_per_byte"}
    assert {metric for model, metric in found if model == "student"} == {"loss", "perplexity", "bits_per_byte"}


def test_the_share_of_the_teachers_probability_on_common_tokens_is_measured(run):
    held_out = load_from_disk(run.path("corpus") / "held_out")
    ours = TokenBytes(AutoTokenizer.from_pretrained(run.path("tokenizer") / "tokenizer"), "the student")
    known = [
        n for n, content in enumerate(TokenBytes(tokenizer(), "the teacher").each) if content in {*ours.each} - {b""}
    ]
    model, masses = llama(0), []
    for text in held_out.select(range(DOCUMENTS))["text"]:
        ids = [tokenizer().eos_token_id, *tokenizer()(text).input_ids]
        for at in range(0, len(ids) - 1, LENGTH - 1):
            with torch.no_grad():
                found = model(input_ids=torch.tensor([ids[at : at + LENGTH]])).logits[0, :-1].softmax(-1)
            masses += found[:, known].sum(-1).tolist()
    shares = read_json(run.path("evaluate") / "comparison.json")["counterparts"]
    assert shares == {"teacher": pytest.approx(np.mean(masses), rel=1e-4)}
    assert shares["teacher"] < 1, "a special token is no token of the student's text"


def test_passages_show_by_how_much_each_span_surprises_the_student_more(run):
    passages = read_json(run.path("evaluate") / "passages.json")
    held_out = load_from_disk(run.path("corpus") / "held_out")
    titles = [
        re.fullmatch(r"Held-out document (\d+), (.+): [+−]\d\.\d\d bits per byte", one["title"]) for one in passages
    ]
    assert [title and title[2] for title in titles] == ["typical", "hardest", "second hardest"]
    for passage, title in zip(passages, titles, strict=True):
        text = held_out[int(title[1])]["text"]
        assert "".join(piece["text"] for piece in passage["tokens"]).strip() == text.strip()
        spans = [piece for piece in passage["tokens"] if "excess" in piece]
        assert len(spans) > 5
        assert all(one["excess"] == pytest.approx(one["student_nll"] - one["teacher_nll"]) for one in spans)


def test_the_teachers_bits_are_those_of_its_own_tokens(run):
    held_out = load_from_disk(run.path("corpus") / "held_out")
    texts = held_out.select(range(DOCUMENTS))["text"]
    nats, model, tokens = [], llama(0), tokenizer()
    for text in texts:
        ids = [tokens.eos_token_id, *tokens(text).input_ids]
        windows = [ids[at : at + LENGTH] for at in range(0, len(ids) - 1, LENGTH - 1)]
        with torch.no_grad():
            losses = [model(input_ids=torch.tensor([one])).logits[0].log_softmax(-1) for one in windows]
        of_windows = zip(losses, windows, strict=True)
        nats.append(-sum(float(each[:-1][range(len(one) - 1), one[1:]].sum()) for each, one in of_windows))
    expected = np.sum(nats) / math.log(2) / sum(len(text.encode()) for text in texts)
    assert rows(run)["teacher", "bits_per_byte"] == pytest.approx(expected, rel=1e-4)


def test_the_corpus_says_what_is_compared(run):
    found = run.manifest(Step("corpus"))["summary"]["alignment"]["smollm2"]
    assert 0.9 < found["bytes_in_spans"] / found["bytes"] < 1
    assert found["student_tokens"] < found["teacher_tokens"]
    assert found["lost_by_teacher"] == 0


def test_the_student_learned_from_it_and_the_control_did_not(run):
    logs = [(run.path(step) / "seed-0" / "log.jsonl").read_text() for step in ("distil", "control")]
    assert '"alm"' in logs[0]
    assert '"alm"' not in logs[1]


def test_a_text_that_a_tokenizer_does_not_give_back_is_refused(tmp_path):
    save_corpus(tmp_path / "text.jsonl", [f"{text} ①② ½ ﬁne ™" for text in documents()])
    told = r"the tokens of `tokenizer` do not give back \d+.\d% of the held-out text \(.* bytes\)"
    with pytest.raises(UserError, match=told):
        run_recipe(recipe(tmp_path), Run(tmp_path / "run"), until="corpus")


def test_the_teachers_own_tokenizer_is_refused(tmp_path):
    save_model(llama(0), tmp_path / "teacher-smollm2")
    own = {"file": str(tmp_path / "teacher-smollm2" / "tokenizer.json"), "pad_token": "<|pad|>"}
    own |= dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    with pytest.raises(UserError, match=r"alm is for a teacher of another tokenizer, but `teachers.smollm2` has the"):
        run_recipe(recipe(tmp_path, f"tokenizer={json.dumps(own)}"), Run(tmp_path / "run"), until="tokenizer")


def test_a_trained_student_gets_the_vocabulary_of_the_run_and_an_adapter(tmp_path):
    """The start is a model of the teacher's own tokens, and reads the run's tokens afterwards."""
    model = save_model(llama(7, layers=2), tmp_path / "small")
    start = {"start": "checkpoint", "model": str(model), "vocabulary": "carry_over"}
    start["adapter"] = {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}
    made, steps = Run(tmp_path / "run"), "distil.training.max_steps=2"
    run_recipe(recipe(tmp_path, steps, f"student={json.dumps(start)}", "control=null"), made, until="distil")
    carried = made.manifest(Step("student"))["summary"]["vocabulary"]
    assert carried["carried"] > 250
    assert sum(carried.values()) == 400
    assert '"alm"' in (made.path(Step("distil", seed=0)) / "log.jsonl").read_text()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run with a second teacher, whose tokenizer differs from both others. Each teaches a half of the text."""
    folder = tmp_path_factory.mktemp("two")
    other = llama(6, vocab_size=len(folding()))
    other.save_pretrained(folder / "other")
    folding().save_pretrained(folder / "other")
    sources = [{"path": str(folder / name)} for name in ("text.jsonl", "more.jsonl")]
    more = {"teachers.other": {"model": str(folder / "other"), "when": {"source": sources[1]["path"]}}}
    more |= {"teachers.smollm2.when": {"source": sources[0]["path"]}}
    more |= {"corpus.sources": sources, "distil.training.max_steps": 2, "evaluate.documents": 8}
    for seed, name in enumerate(("text.jsonl", "more.jsonl")):
        # `folding` does not give capital letters and marks back.
        texts = [text.lower().replace("ï", "i") for text in documents(80, seed=seed)]
        save_corpus(folder / name, texts)
    made = Run(folder / "run")
    run_recipe(recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in more.items())), made, until="evaluate")
    return made


def test_each_of_several_teachers_is_aligned_and_scored_by_itself(two):
    aligned = two.manifest(Step("corpus"))["summary"]["alignment"]
    assert [*aligned] == ["smollm2", "other"]
    assert aligned["smollm2"]["teacher_tokens"] != aligned["other"]["teacher_tokens"]
    found = rows(two)
    assert {model for model, metric in found if metric.startswith("bits_per_byte")} >= {
        "teacher smollm2",
        "teacher other",
        "student",
    }
    log = (two.path(Step("distil", seed=0)) / "log.jsonl").read_text()
    assert '"alm/smollm2"' in log
    assert '"alm/other"' in log


def test_passages_are_of_what_their_teacher_teaches(two):
    held_out = load_from_disk(two.path("corpus") / "held_out").select(range(8))
    shown = [int(re.findall(r"\d+", one["title"])[0]) for one in read_json(two.path("evaluate") / "passages.json")]
    assert shown
    assert {tuple(held_out[n]["teachers"]) for n in shown} == {("smollm2",)}
    assert ["other"] in held_out["teachers"]


def test_a_student_writes_for_a_teacher_that_reads_other_tokens(tmp_path):
    given = ["distil.training.max_steps=2", "distil.on_policy={share: 0.5, beginning: 8, max_new_tokens: 8}"]
    made = Run(tmp_path / "run")
    run_recipe(recipe(tmp_path, "control=null", *given), made, until="distil")
    log = (made.path(Step("distil", seed=0)) / "log.jsonl").read_text()
    assert '"on_policy/alm"' in log
    assert '"on_policy/lost_text"' in log
