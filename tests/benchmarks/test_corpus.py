"""The section `corpus` without its processes."""

import json
import os

import pytest
import torch

from benchmarks import corpus, corpus_process
from benchmarks.aims import AIMS
from benchmarks.run import Settings
from tests import tiny


def test_texts_have_their_size_and_no_repeats(tmp_path):
    passages = [f"passage {n}: " + "words " * 200 for n in range(200)]
    file = corpus._write(tmp_path / "text.jsonl", passages, 1)
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert texts[:200] == passages
    assert 1e6 <= sum(map(len, texts)) < 1.01e6
    assert len(set(texts[:200])) == 200


def test_the_section_compares_speed_and_finds_the_greatest_memory(monkeypatch):
    monkeypatch.setattr(corpus, "boolq_passages", lambda: [f"passage {n}: " + "some words " * 40 for n in range(3000)])
    monkeypatch.setattr(corpus, "train_tokenizer", lambda texts, settings: None)
    monkeypatch.setattr(corpus, "_save_teacher", lambda folder, tokenizer: None)
    given = {"potstill": {"seconds": 2.0, "mebibytes": 60.0}, "map": {"seconds": 3.0, "mebibytes": 1.0}}
    monkeypatch.setattr(corpus, "_child", lambda how, folder, file: given[how])
    tables, measured = corpus.section(Settings(torch.device("cpu"), quick=True, rounds=2))
    assert [cells[0] for cells in tables[0].rows] == ["potstill", "datasets.map"]
    assert {one.key: one.median for one in measured} == {"corpus, speed": 1.5, "corpus, memory": 60.0}
    assert {one.key for one in measured} <= {aim.key for aim in AIMS}


def test_the_growth_of_memory_is_told_by_the_byte_of_text():
    peaks = {50: 50.0, 150: 400.0, 500: 50.0 + 450 * 10**6 * 0.25 / 2**20}
    assert "From 50 to 500 MB it grows by 0.2 bytes a byte of text." in corpus.growth(peaks)
    assert "grows by 1.0 bytes" in corpus.growth({1: 0.0, 2: 10**6 / 2**20})


@pytest.mark.parametrize("how", ["potstill", "map"])
def test_one_measurement_runs(how, tmp_path, monkeypatch, capsys):
    teacher = tiny.save_model(tiny.llama(), tmp_path / "teacher")
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": f"passage {n}: " + "some words " * 20}) + "\n" for n in range(50)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: None)
    monkeypatch.setattr(corpus_process, "PROCESSES", 1)
    corpus_process.main(how, str(teacher), str(file), str(tmp_path / "made"))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {"seconds", "mebibytes"}
