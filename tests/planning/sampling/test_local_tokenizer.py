"""The tokenizer of a run before it, where it is on this machine."""

import pytest

import minimal
from potstill.data.documents import training_text
from potstill.data.tokenizers import train_tokenizer
from potstill.errors import UserError
from potstill.planning.sampling import local_tokenizer as module
from potstill.planning.sampling.local_tokenizer import local_tokenizer, trained_tokenizer
from potstill.planning.sampling.measure import measured_amounts
from tiny import llama, save_model, tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(llama(), tmp_path_factory.mktemp("model") / "teacher")


def test_that_of_the_first_teacher(tmp_path, model):
    found = local_tokenizer(minimal.recipe(tmp_path, f"teachers.t.model={model}"))
    assert found.get_vocab() == tokenizer().get_vocab()


def test_a_file(tmp_path, model):
    given = (
        f"{{file: {model / 'tokenizer.json'}, pad_token: <|pad|>, bos_token: <|endoftext|>, eos_token: <|endoftext|>}}"
    )
    found = local_tokenizer(minimal.recipe(tmp_path, f"tokenizer={given}"))
    assert found.pad_token == "<|pad|>"


def test_the_first_tokens_of_a_teacher(tmp_path, model):
    recipe = minimal.recipe(tmp_path, f"teachers.t.model={model}", "tokenizer={teacher: t, vocab_size: 280}")
    assert len(local_tokenizer(recipe)) == 280


def test_none_where_the_run_trains_it_or_the_hub_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert local_tokenizer(minimal.recipe(tmp_path, "tokenizer={vocab_size: 300}")) is None
    assert local_tokenizer(minimal.recipe(tmp_path, "teachers.t.model=some/model")) is None
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("potstill.files.named_data.NamedData._snapshot", lambda *given, **how: None)
    assert local_tokenizer(minimal.recipe(tmp_path, "teachers.t={data: stories260k}")) is None


def test_a_damaged_one_is_a_sentence(tmp_path, model):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes() if "token" not in file.name else b"{")
    with pytest.raises(UserError, match=r"teachers\.t"):
        local_tokenizer(minimal.recipe(tmp_path, f"teachers.t.model={damaged}"))


def test_a_tokenizer_of_questions_is_trained_as_the_run_will_train_it(tmp_path, monkeypatch):
    rows = "".join(f'{{"question": "What is {n} + 1?", "answer": "It is {n + 1}."}}\n' for n in range(60))
    (tmp_path / "q.jsonl").write_text(rows)
    source = f"corpus.questions=[{{path: {tmp_path / 'q.jsonl'}}}]"
    recipe = minimal.questions(
        tmp_path, source, "tokenizer={vocab_size: 280}", "generate=null", "corpus.sequence_length=512"
    )
    found = trained_tokenizer(recipe)
    assert found.get_vocab() == train_tokenizer(training_text(recipe.corpus), recipe.tokenizer).get_vocab()
    measured = measured_amounts(recipe)
    assert "were made" in measured.origin, "the prompts are measured before there is a tokenizer"
    too_many = minimal.questions(tmp_path, source, "tokenizer={vocab_size: 9000}", "generate=null")
    assert "`tokenizer.vocab_size` is 9,000" in measured_amounts(too_many), "as the run will say"
    monkeypatch.setattr(module, "TEXTS", 10)
    assert trained_tokenizer(too_many) is None
    assert "tokenizer is not on this machine" in measured_amounts(too_many)


def test_a_tokenizer_of_questions_that_are_elsewhere_is_not_trained(tmp_path):
    recipe = minimal.questions(tmp_path, "corpus.questions=[{path: nowhere.jsonl}]", "tokenizer={vocab_size: 280}")
    assert "was not measured" in measured_amounts(recipe)
