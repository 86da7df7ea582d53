import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_questions
from potstill.data.tokenizers import train_tokenizer
from potstill.errors import UserError
from potstill.generation import generate
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step
from potstill.targets import TargetStore
from tiny import tokenizer, toy_recipe


def _made(folder, *overrides, until="tokenizer"):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, *overrides, recipe="babyllama-mini"), run, until=until)
    return run


def test_it_is_a_plain_folder_that_text_comes_back_from(tmp_path):
    run = _made(tmp_path)
    found = AutoTokenizer.from_pretrained(run.path("tokenizer") / "tokenizer")
    text = "A boat, two letters — naïve?"
    assert found.decode(found(text).input_ids) == " " + text
    assert (found.pad_token, found.bos_token, found.eos_token) == ("<pad>", "<s>", "</s>")
    assert run.manifest("tokenizer")["summary"]["vocabulary"] == len(found) == 300


def test_it_is_trained_on_the_training_split_alone(tmp_path, monkeypatch):
    seen = []

    def spy(documents, settings):
        seen.extend(documents)
        return train_tokenizer(documents, settings)

    monkeypatch.setattr("potstill.stages.tokenizer.train_tokenizer", spy)
    _made(tmp_path)
    train = {file.read_text() for file in (tmp_path / "train").iterdir()}
    assert {text.rstrip("\n") for text in seen} == {text.rstrip("\n") for text in train}


def test_a_file_is_taken_as_it_is_and_the_whole_run_speaks_it(tmp_path):
    file = tmp_path / "mine.json"
    tokenizer().backend_tokenizer.save(str(file))
    roles = {"pad_token": "<|pad|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    run = _made(tmp_path, f"tokenizer={json.dumps({'file': str(file), **roles})}", until="student")
    for made in ("tokenizer/tokenizer", "student/start"):
        found = AutoTokenizer.from_pretrained(run.folder / made)
        assert found.get_vocab() == tokenizer().get_vocab()
        assert found.bos_token == "<|endoftext|>"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"`tokenizer.file`: there is no file 'no.json'"):
        _made(tmp_path, "tokenizer={file: no.json}")


def test_a_vocabulary_that_the_text_does_not_support_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"`tokenizer.vocab_size` is 50,000, but the training text yields only"):
        _made(tmp_path, "tokenizer={vocab_size: 50000}")
    assert not (tmp_path / "run" / "tokenizer" / "tokenizer").exists()


def test_a_teacher_of_another_tokenizer_is_refused(tmp_path):
    toy_recipe(tmp_path)  # makes a teacher
    teachers = json.dumps({"other": {"model": str(tmp_path / "teacher-smollm2")}})
    with pytest.raises(UserError) as told:
        _made(tmp_path, f"teachers={teachers}", "pretrain={}")
    assert str(told.value).startswith("`tokenizer` and teachers.other have different tokenizers")
    assert str(told.value).endswith("; use models of one tokenizer, or the loss `alm`")


def test_what_is_said_of_a_teacher_of_another_tokenizer_works(tmp_path):
    toy_recipe(tmp_path)
    teachers = json.dumps({"other": {"model": str(tmp_path / "teacher-smollm2")}})
    losses = json.dumps([{"kind": "alm"}, {"kind": "cross_entropy"}])
    more = (f"teachers={teachers}", "pretrain={}", f"distil.losses={losses}", "distil.mix=probabilities")
    assert _made(tmp_path, *more).manifest("tokenizer") is not None


CUT = "tokenizer={teacher: smollm2, vocab_size: 280}"
WHOLE = 'student={"start": "copy", "from": "smollm2"}'


def _cut(folder, *overrides, name="run", until="distil"):
    run = Run(folder / name)
    run_recipe(toy_recipe(folder, CUT, WHOLE, *overrides), run, until=until)
    return run


def _student(run):
    return AutoModelForCausalLM.from_pretrained(run.path("distil") / "student")


def test_student_and_teacher_are_compared_on_the_tokens_that_are_left(tmp_path):
    run = _cut(tmp_path, "capture=null", until="evaluate")
    found = AutoTokenizer.from_pretrained(run.path("tokenizer") / "tokenizer")
    assert len(found) == 280
    assert run.manifest("tokenizer")["summary"]["made"] == "280 tokens, the first of the 300 of smollm2"
    assert _student(run).config.vocab_size == 280
    rows = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    value = {(row["model"], row["metric"]): row["value"] for row in rows}
    # All of the teacher's layers: on the tokens that it still has, the start is its teacher.
    assert value["start", "kl_to_teacher"] == pytest.approx(0, abs=1e-6)
    assert value["start", "loss"] == pytest.approx(value["teacher", "loss"], abs=1e-6)
    assert value["student", "kl_to_teacher"] > 1e-5


def test_what_was_captured_of_a_cut_vocabulary_teaches_what_the_live_teacher_does(tmp_path):
    live = _cut(tmp_path, "capture=null", name="live")
    captured = _cut(tmp_path, "capture={keep: hidden}", name="captured")
    store = TargetStore(captured.path("capture") / "smollm2", expect=None)
    assert store.codec.vocabulary == 280
    for one, other in zip(_student(live).parameters(), _student(captured).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("tokenizer", "sentence"),
    [
        ("{teacher: none, vocab_size: 280}", r"`tokenizer.teacher`: 'none' is not one of `teachers`: smollm2"),
        ("{teacher: smollm2, vocab_size: 400}", r"`tokenizer.vocab_size` is 400, but teachers.smollm2 has only 300"),
        (
            "{teacher: smollm2, vocab_size: 100}",
            r"`tokenizer.vocab_size` is 100, but .*a part of other tokens",
        ),
    ],
)
def test_a_cut_that_cannot_be_is_told(tmp_path, tokenizer, sentence):
    with pytest.raises(UserError, match=sentence):
        run_recipe(toy_recipe(tmp_path, f"tokenizer={tokenizer}"), Run(tmp_path / "run"), until="tokenizer")


def test_text_does_not_matter_to_a_cut(tmp_path):
    recipe = toy_recipe(tmp_path, CUT)
    run = Run(tmp_path / "run")
    run_recipe(recipe, run, until="tokenizer")
    before = run.manifest("tokenizer")
    (tmp_path / "text.jsonl").write_text('{"text": "another"}\n' * 3)
    run_recipe(recipe, run, until="tokenizer")
    assert run.manifest("tokenizer") == before


def test_a_teacher_answers_in_the_tokens_that_are_left(tmp_path, monkeypatch):
    written = []
    read = generate._response

    def spy(one, *how):
        written.extend(one.ids)
        return read(one, *how)

    monkeypatch.setattr(generate, "_response", spy)
    cut = ("tokenizer={teacher: t, vocab_size: 280}", "capture=null", "experiments={base: {}}", "seeds=[0]")
    run = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path, *cut, "answers.teachers=true"), run, until="answers")
    assert run.manifest(Step("answers", candidate=Candidate("teacher"))) is not None
    assert max(written) in range(258, 280), "merges are used, and none that is cut off"
