"""What a corpus may not say: streams without an end, layouts that contradict themselves."""

import pytest

import minimal
from potstill.errors import UserError

STREAM = "corpus.sources=[{dataset: some/set, stream: true}]"
MIXED = "corpus.sources=[{dataset: some/set, stream: true}, {dataset: some/other}]"
APART = "corpus.held_out={sources: [{dataset: some/set, stream: true}], sequences: 4}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([STREAM], "`corpus.train_tokens`: is missing: a stream is read until so many tokens are there; say how many"),
        ([MIXED, "corpus.train_tokens=100"], "`corpus.sources`: must all have `stream: true` or none"),
        ([APART], "`corpus.held_out`: may stream only where `sources` do"),
        (["corpus.sources=[{path: text.txt, stream: true}]"], "`corpus.sources.0.stream`: unknown key"),
        (["corpus.attention=document", "corpus.layout=padded"], "`corpus.attention`: document needs `layout: packed`"),
        (
            ["corpus.attention=document", "corpus.random_offset=true", "capture=null"],
            "does not go with `random_offset`",
        ),
        (["corpus.attention=documents"], "`corpus.attention`"),
        (
            ["corpus.attention=document", "teachers.t={model: here, gguf: t.gguf, engine: llama_cpp}"],
            "`teachers.t.engine: llama_cpp` reads a row as one text",
        ),
    ],
)
def test_it_is_refused_in_one_sentence(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as told:
        minimal.recipe(tmp_path, *overrides)
    assert sentence in str(told.value)


def test_a_stream_with_an_end_is_taken(tmp_path):
    corpus = minimal.recipe(tmp_path, STREAM, "corpus.train_tokens=100").corpus
    assert corpus.streams
    assert not minimal.recipe(tmp_path).corpus.streams
