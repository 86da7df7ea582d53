import pytest
import torch

from benchmarks import alignment
from benchmarks.aims import AIMS
from benchmarks.run import Settings
from tests import tiny


def test_the_section_measures_reading_and_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "boolq_passages", lambda: tiny.documents(300))
    monkeypatch.setattr(alignment, "train_tokenizer", lambda texts, settings: tiny.tokenizer())
    tables, measured = alignment.section(Settings(torch.device("cpu"), quick=True, rounds=1))
    assert len(tables[0].rows) == 2
    assert [one.key for one in measured] == ["alignment"]
    assert measured[0].median > 0
    assert {one.key for one in measured} <= {aim.key for aim in AIMS}
