"""llama.cpp and transformers are one interface, and what goes wrong in llama.cpp's process is one sentence."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from potstill.errors import UserError
from potstill.export.engines import llama_cpp
from potstill.export.engines.llama_cpp import LlamaCpp
from potstill.export.engines.transformers import Transformers
from potstill.export.formats import further_ends
from potstill.export.gguf.file import head_in_file, write_gguf
from potstill.export.student import ExportedStudent
from tiny import llama, tokenizer

SPECIAL = ["<|im_end|>", "<|endoftext|>", "<|mine|>"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model, and its file."""
    model, file = llama(), tmp_path_factory.mktemp("exported") / "model.gguf"
    write_gguf(model, tokenizer(), file, "F16", "tiny")
    return model, file


@torch.no_grad()
def test_both_engines_leave_the_end_of_an_answer_out(tmp_path):
    model, prompt, file = llama(), [5, 9, 3, 7, 11, 4, 8, 6], tmp_path / "model.gguf"
    state = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
    model.lm_head.weight[0] = 100 * state / state.square().sum()
    write_gguf(model, tokenizer(), file, "F16", "tiny")
    assert Transformers(model, tokenizer(), [0]).written(prompt, 4) == ([], True)
    with LlamaCpp(file, head_in_file(model, "F16"), 64) as engine:
        assert engine.written(prompt, 4) == ([], True)


def test_llama_cpp_also_stops_at_tokens_that_it_knows_by_their_text(tmp_path):
    chatting = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()), eos_token="<|im_end|>"
    )
    chatting.add_special_tokens({"additional_special_tokens": SPECIAL})
    ids = dict(zip(("end", "document", "mine"), chatting.convert_tokens_to_ids(SPECIAL), strict=True))
    model, file = llama(vocab_size=len(chatting)), tmp_path / "model.gguf"
    model.generation_config.eos_token_id = ids["end"]
    write_gguf(model, chatting, file, "F16", "tiny")
    with LlamaCpp(file, head_in_file(model, "F16"), 64) as engine:
        assert engine.ends_among(ids.values()) == [ids["end"], ids["document"]]
        assert further_ends(ExportedStudent(model, model, chatting), engine) == [ids["document"]]


def test_a_damaged_file_is_one_sentence_with_llama_cpps_reason(exported, tmp_path):
    model, file = exported
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"llama.cpp cannot open damaged.gguf \(.+\)$"):
        LlamaCpp(damaged, head_in_file(model, "F16"), 64)


def test_a_longer_text_than_the_context_is_refused_with_llama_cpps_reason(exported):
    model, file = exported
    with (
        LlamaCpp(file, head_in_file(model, "F16"), 16) as engine,
        pytest.raises(UserError, match=r"refused a request \(.+\)"),
    ):
        engine.written([5] * 2000, 1)


def test_a_process_that_dies_while_it_runs_the_file_is_one_sentence(exported):
    model, file = exported
    with LlamaCpp(file, head_in_file(model, "F16"), 64) as engine:
        engine._process.kill()
        engine._process.wait()
        with pytest.raises(UserError, match=r"llama.cpp stopped while it ran the file"):
            engine.written([5], 1)


def test_without_llama_cpp_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(llama_cpp.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`export.to`: .*pip install 'potstill\[export\]'"):
        llama_cpp.check_installed()
