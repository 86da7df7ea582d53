"""What is measured of a corpus, and the sentence in its place where it cannot be."""

import pytest

import minimal
from potstill.planning.amounts import Amounts
from potstill.planning.sampling.measure import measured_amounts
from tiny import documents, llama, save_corpus, save_model


@pytest.fixture
def folder(tmp_path):
    save_model(llama(), tmp_path / "model")
    save_corpus(tmp_path / "text.jsonl", documents())
    return tmp_path


def test_a_text_with_the_tokenizer_of_the_recipe(folder):
    sources = (f"corpus.sources=[{{path: {folder / 'text.jsonl'}}}]", f"teachers.t.model={folder / 'model'}")
    found = measured_amounts(minimal.recipe(folder, *sources))
    assert isinstance(found, Amounts)
    assert found.origin == "measured on the text, 100% of which was tokenized"
    # The separator that the tokenizer does not have.
    assert "`corpus.separator`" in measured_amounts(minimal.recipe(folder, *sources, "corpus.separator=<none>"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("corpus.sources=[{path: no/such.jsonl}]",), "the corpus was not measured: `corpus.sources.0.path`: no text"),
        (("corpus.sources=[{path: text.jsonl, field: none}]",), "there is no field 'none'"),
        (("teachers.t.gguf=none.gguf",), "the corpus was not measured: "),
        (("corpus={questions: [{path: text.jsonl}], sequence_length: 64}", "teachers.t.model=no/such"), "tokenizer"),
    ],
)
def test_why_nothing_was_measured_is_a_sentence(folder, overrides, said, monkeypatch):
    monkeypatch.chdir(folder)
    recipe = minimal.recipe(folder, "corpus.sources=[{path: text.jsonl}]", "teachers.t.model=model", *overrides)
    assert said in measured_amounts(recipe)
