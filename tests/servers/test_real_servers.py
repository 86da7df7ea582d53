"""Real servers still answer what is recorded, and vLLM's log-probabilities are those of transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from servers import record
from servers.real_servers import RealServer, converted, gguf_file, llama_cpp_server, needs, vllm_server

RECORDED = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(record.FOLDER.glob("*.json"))}
# What differs from answer to answer, or from machine to machine.
PASSING = {"created", "id", "media_marker", "model_path", "permission", "system_fingerprint", "timings"}
NATS = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("model") / record.MODEL)


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Iterator[RealServer]:
    needs("vllm")
    with vllm_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[RealServer]:
    needs("xllamacpp")
    with llama_cpp_server(gguf_file()) as server:
        yield server


def assert_alike(found: Any, recorded: Any) -> None:
    """Numbers may differ by rounding; what passes may differ, and all else is equal."""
    if isinstance(recorded, dict):
        assert found.keys() == recorded.keys()
        for name in recorded.keys() - PASSING:
            assert_alike(found[name], recorded[name])
        # llama.cpp calls a token's id so, too.
        if isinstance(recorded.get("id"), int):
            assert found["id"] == recorded["id"]
    elif isinstance(recorded, list):
        assert len(found) == len(recorded)
        for mine, theirs in zip(found, recorded, strict=True):
            assert_alike(mine, theirs)
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, abs=NATS)
    else:
        assert found == recorded


@pytest.mark.servers
@pytest.mark.parametrize(("name", "question"), list(record.vllm_questions()), ids=lambda one: str(one)[:30])
def test_vllm_answers_as_recorded(vllm: RealServer, name: str, question: record.Question) -> None:
    assert_alike(record.answer(vllm, question), RECORDED[f"vllm-{name}"])


@pytest.mark.servers
@pytest.mark.parametrize(("name", "question"), list(record.llama_cpp_questions()), ids=lambda one: str(one)[:30])
def test_llama_cpp_answers_as_recorded(llama_cpp: RealServer, name: str, question: record.Question) -> None:
    assert_alike(record.answer(llama_cpp, question), RECORDED[f"llama-cpp-{name}"])


@pytest.mark.servers
def test_recorded_log_probabilities_are_those_of_transformers(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for number, row in enumerate(record.ROWS):
        first, *rest = RECORDED[f"vllm-score-{number}"]["answer"]["choices"][0]["prompt_logprobs"]
        with torch.no_grad():
            expected = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        assert first is None
        for at, scored in enumerate(rest):
            best = {str(token) for token in expected[at].topk(8).indices.tolist()}
            assert scored.keys() == best | {str(row[at + 1])}
            for token, one in scored.items():
                assert one["logprob"] == pytest.approx(expected[at, int(token)].item(), abs=NATS)


def test_every_question_is_recorded_and_nothing_else() -> None:
    asked = {f"vllm-{name}": question for name, question in record.vllm_questions()}
    asked |= {f"llama-cpp-{name}": question for name, question in record.llama_cpp_questions()}
    assert asked.keys() == RECORDED.keys()
    for name, question in asked.items():
        recorded = RECORDED[name]["asked"]
        assert (recorded["path"], recorded["body"]) == (question.path, question.body)


def test_a_token_beyond_the_likeliest_is_recorded_with_its_rank() -> None:
    scored = RECORDED["vllm-score-0"]["answer"]["choices"][0]["prompt_logprobs"][1]
    assert len(scored) == 9
    assert scored[str(record.ROWS[0][1])]["rank"] > 8
