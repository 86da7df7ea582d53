"""`corpus:` refuses streams without an end and layouts that contradict themselves."""

import pytest

import minimal
from potstill.errors import UserError

STREAM = "corpus.sources=[{dataset: some/set, stream: true}]"
MIXED = "corpus.sources=[{dataset: some/set, stream: true}, {dataset: some/other}]"
APART = "corpus.held_out={sources: [{dataset: some/set, stream: true}], sequences: 4}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([STREAM], "`corpus.train_tokens`: is missing, and a stream has no end; give the number of tokens to read"),
        ([MIXED, "corpus.train_tokens=100"], "`corpus.sources`: must all have `stream: true`, or none of them"),
        ([APART], "`corpus.held_out`: may have `stream: true` only if `sources` have it"),
        (["corpus.sources=[{path: text.txt, stream: true}]"], "`corpus.sources.0.stream`: unknown key"),
        (
            ["corpus.attention=document", "corpus.layout=padded"],
            "`corpus.attention`: `document` needs `layout: packed`",
        ),
        (
            ["corpus.attention=document", "corpus.random_offset=true", "capture=null"],
            "does not work with `random_offset`",
        ),
        (["corpus.attention=documents"], "`corpus.attention`"),
        (
            ["corpus.attention=document", "teachers.t={model: here, gguf: t.gguf, engine: llama_cpp}"],
            "`teachers.t.engine: llama_cpp` reads a sample as one text",
        ),
    ],
)
def test_an_inconsistent_corpus_is_refused_in_one_sentence(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, *overrides)
    assert sentence in str(error.value)


def test_a_stream_with_an_end_is_accepted(tmp_path):
    corpus = minimal.recipe(tmp_path, STREAM, "corpus.train_tokens=100").corpus
    assert corpus.streams
    assert not minimal.recipe(tmp_path).corpus.streams
