import json

import pytest
from transformers import AutoTokenizer

from potstill.run import Run
from potstill.runner import run_recipe
from potstill.text.tokenizers import train_tokenizer
from potstill.words import UserError
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
    with pytest.raises(UserError, match=r"`tokenizer` and teachers\.other have different tokenizers"):
        _made(tmp_path, f"teachers={teachers}", "pretrain={}")
