"""Only files that are here are read, and nothing is fetched."""

import pytest

from potstill.errors import UserError
from potstill.planning.sampling.local_files import bytes_in, local_files
from potstill.recipe.corpus import Corpus
from potstill.recipe.questions import Questions


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    def asked(*arguments, **how):
        raise AssertionError("a plan asked the hub")

    monkeypatch.setattr("potstill.files.named_data.NamedData._fetch", asked)
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path / "data"))


def corpus(*sources):
    return Corpus.model_validate({"sources": list(sources), "sequence_length": 8}).sources


def test_files_of_all_sources(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("abc")
    found = local_files(corpus({"path": str(tmp_path / "a.txt")}, {"path": str(tmp_path / "b.txt")}), "corpus.sources")
    assert [file.name for file in found] == ["a.txt", "b.txt"]
    assert bytes_in(found) == 6


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"data": "gsm8k"}, "`corpus.sources.0.data`: gsm8k is not on this machine"),
        ({"dataset": "some/one"}, "`corpus.sources.0.dataset`: some/one is read through `datasets`"),
        ({"dataset": "some/one", "stream": True}, "of which a plan reads nothing"),
        ({"path": "no/such"}, "`corpus.sources.0.path`: no text at 'no/such'"),
        ({"package": "no_such", "file": "a.txt"}, "no_such"),
    ],
)
def test_what_is_not_here_is_a_sentence(source, said):
    with pytest.raises(UserError) as error:
        local_files(corpus(source) if not source.get("stream") else _streamed(source), "corpus.sources")
    assert said in str(error.value)


def _streamed(source):
    return Corpus.model_validate({"sources": [source], "sequence_length": 8, "train_tokens": 64}).sources


def test_generated_questions_have_no_files():
    questions = Questions.model_validate({"questions": [{"generator": "chain_sum", "count": 4}], "sequence_length": 64})
    assert local_files(questions.questions, "corpus.questions") == []
