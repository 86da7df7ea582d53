import json

import pytest

import minimal
from potstill.errors import UserError
from tiny import llama, save_model, toy_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    save_model(llama(5, layers=2), folder / "student")
    return folder


def recipe(folder, *more, **of_teacher):
    served = {"server": "http://127.0.0.1:8000/v1", "model": "m", "api": "vllm", **of_teacher}
    student = {"start": "checkpoint", "model": str(folder / "student")}
    given = [f"teachers={json.dumps({'big': served})}", f"student={json.dumps(student)}"]
    return toy_recipe(folder, *given, *more)


def test_a_served_teacher_is_a_teacher(folder):
    teacher = recipe(folder, key="VLLM_KEY").teachers["big"]
    assert (teacher.api, teacher.top_k, teacher.key) == ("vllm", 64, "VLLM_KEY")


KEYS = ("abc", "AbCdEf0123456789", "0123456789ABCDEF", "AKIAIOSFODNN7EXAMPLE", "sk-12345678901234567890", "A B", "")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_itself_is_refused_and_not_repeated(folder, key):
    with pytest.raises(UserError) as refused:
        recipe(folder, key=key)
    assert not key or key not in str(refused.value).replace("`teachers.big.key`", "")


ADDRESSES = ("host:8000", "ftp://host/v1", "http://", "http://a b/v1", "http://host/v1?key=1", "http://me:word@host/v1")


@pytest.mark.parametrize("server", ADDRESSES)
def test_what_is_no_address_is_refused(folder, server):
    with pytest.raises(UserError, match=r"teachers.big.server`"):
        recipe(folder, server=server)


TWO = ["teachers.big.weight=2", 'teachers.other={"model": "x"}']
REFUSED = {
    "weights for the student": ['student={"start": "prune_layers", "from": "big", "layers": 2}'],
    "a cut tokenizer": ['tokenizer={"teacher": "big", "vocab_size": 100}'],
    "hidden states": ["capture.keep=hidden"],
    "samples": ["capture.keep=sample"],
    "a hybrid": ["capture.keep=hybrid"],
    "more than it is asked for": ["capture.k=65"],
    "another temperature": ["distil.losses.0.temperature=2"],
    "a searched temperature": ['search={"temperatures": [1, 2]}', "corpus.validation=4"],
    "split weights": ["capture=null", "distributed.strategy=fsdp2"],
    "layers": ["capture=null", 'distil.losses=[{"kind": "hidden_match", "weight": 1}]'],
    "a mixture of logits": ["capture=null", "distil.mix=logits", *TWO],
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_what_a_server_does_not_give_is_refused_in_one_sentence(folder, more):
    with pytest.raises(UserError, match="big") as refused:
        recipe(folder, *more)
    assert "\n" not in str(refused.value)


def test_sglang_follows_one_temperature(folder):
    recipe(folder, "distil.losses.0.temperature=2", api="sglang")
    both = [{"kind": "forward_kl", "temperature": 1}, {"kind": "forward_kl", "temperature": 2}]
    with pytest.raises(UserError, match="is asked at one temperature"):
        recipe(folder, f"distil.losses={json.dumps(both)}", api="sglang")


def test_an_unknown_api_names_those_that_there_are(folder):
    with pytest.raises(
        UserError, match="must be one of 'vllm', 'sglang', 'llama_cpp', 'ollama', 'openai', 'potstill', not 'tgi'"
    ):
        recipe(folder, api="tgi")


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_what_writes_here_is_not_chosen_where_the_server_writes(tmp_path, engine):
    served = 'teachers={"t": {"server": "http://127.0.0.1:8000/v1", "model": "m", "api": "vllm"}}'
    settings = [served, "student={start: checkpoint, model: s}"]
    minimal.questions(tmp_path, *settings)
    with pytest.raises(UserError, match=rf"`generate.engine: {engine}` .*`teachers.t` is behind a server"):
        minimal.questions(tmp_path, *settings, f"generate.engine={engine}")
