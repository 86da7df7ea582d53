"""What real servers told of their own tokens is read by ids and by bytes alike; nothing is guessed."""

import json
from copy import deepcopy

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.written import OTHER_TOKENS, UNKNOWN_TOKENS, WrittenReader
from servers.record import FOLDER
from tiny import tokenizer

END = 0


@pytest.fixture(scope="module")
def reader():
    return WrittenReader(ModelTokens(tokenizer()), [END], "`teachers.big.server`")


def token(text, log_prob, **more):
    return {"token": text, "bytes": [*text.encode()], "logprob": log_prob, **more}


def said(*texts, log_prob=-1.0, others=(" northern", " cos")):
    """Each token with two others that are likelier."""
    likeliest = [token(text, -1.5 - number) for number, text in enumerate(others)]
    return [token(text, log_prob) | {"top_logprobs": [token(text, log_prob), *likeliest]} for text in texts]


def pieces(text):
    return [tokenizer().decode([id]) for id in tokenizer().encode(text)]


def with_ids(content):
    """The same as a server says it that knows ids."""
    found = deepcopy(content)
    for one in [*found, *(each for entry in found for each in entry["top_logprobs"])]:
        (one["id"],) = tokenizer().encode(one["token"]) or [END]
    return found


TEXT = "the old town"


@pytest.mark.parametrize("kind", [lambda content: content, with_ids], ids=["texts", "ids"])
def test_tokens_and_their_predictions(reader, kind):
    found = reader(kind(said(*pieces(TEXT))), ended=False)
    assert found.fault is None
    assert found.ids == tokenizer().encode(TEXT)
    (likely,) = tokenizer().encode(" northern")
    assert found.scored.log_probs[0][list(found.scored.ids[0]).index(likely)] == -1.5
    assert (found.scored.label_log_probs == -1.0).all()


@pytest.mark.parametrize("end", ["", "<|endoftext|>"])
def test_an_end_has_the_prediction_that_the_server_tells_of_it(reader, end):
    found = reader(said(*pieces(TEXT), end, log_prob=-0.5), ended=True)
    assert found.ids == [*tokenizer().encode(TEXT), END]
    assert len(found.scored.log_probs) == len(found.ids)
    # Without a text, it might be another end token.
    assert found.scored.label_log_probs[-1] == (-0.5 if end else -np.inf)


def test_an_end_that_the_server_does_not_tell_has_no_prediction(reader):
    found = reader(said(*pieces(TEXT)), ended=True)
    assert found.ids[-1] == END
    assert len(found.scored.log_probs) == len(found.ids)
    assert (found.scored.log_probs[-1] == -np.inf).all()
    assert found.scored.label_log_probs[-1] == -np.inf


def test_likely_tokens_that_are_not_known_here_are_among_all_others(reader):
    found = reader(said(*pieces(TEXT), others=("Übermut", "", " cos")), ended=False)
    assert found.fault is None
    assert ((found.scored.log_probs > -np.inf).sum(-1) <= 2).all()


UNKNOWN = {
    "a token of another tokenizer": ["the old", " town"],
    "another cut": [*"the"],
    "half a character": ["th", "e", "\ufffd"],
}


@pytest.mark.parametrize("texts", UNKNOWN.values(), ids=UNKNOWN)
def test_tokens_that_cannot_be_matched_are_a_fault(reader, texts):
    found = reader(said(*texts), ended=False)
    assert found.fault == UNKNOWN_TOKENS
    assert not found.ids


def test_ids_that_are_not_those_of_their_text_are_a_fault(reader):
    found = reader(with_ids(said(*"the")), ended=False)
    assert found.fault == OTHER_TOKENS
    assert not found.ids


def test_two_halves_of_a_character_are_matched_by_their_bytes(reader):
    text = "naïve 日本"
    ids = tokenizer().encode(text)
    bytes_ = [ModelTokens(tokenizer()).of(id) for id in ids]
    content = [
        {
            "token": one.decode(errors="replace"),
            "bytes": [*one],
            "logprob": -1.0,
            "top_logprobs": [token(" northern", -2.0)],
        }
        for one in bytes_
    ]
    assert any("\ufffd" in one["token"] for one in content)
    assert reader(content, ended=False).ids == ids
    without = [{name: value for name, value in one.items() if name != "bytes"} for one in content]
    assert reader(without, ended=False).fault == UNKNOWN_TOKENS


WRONG = {
    "no numbers": lambda one: one | {"logprob": None},
    "NaN": lambda one: one | {"top_logprobs": [token("th", float("nan"))]},
    "no probabilities": lambda one: one | {"top_logprobs": [token("th", -0.1), token(" northern", -0.1)]},
    "no likeliest tokens": lambda one: one | {"top_logprobs": []},
    "null": lambda one: one | {"top_logprobs": None},
    "no log-probability": lambda one: {"token": "th"},
    "a text": lambda one: "th",
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_no_distribution_is_refused_in_one_sentence(reader, change):
    with pytest.raises(UserError, match=r"^`teachers.big.server`") as refused:
        reader([change(one) for one in said("th")], ended=False)
    assert "\n" not in str(refused.value)


def test_a_token_twice_is_counted_once(reader):
    content = said("th", log_prob=-0.2, others=())
    content[0]["top_logprobs"] *= 2
    found = reader(content, ended=False)
    assert (found.scored.log_probs > -np.inf).sum() == 1


def recorded(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["answer"]


class SmolLM2:
    """The tokens of a real tokenizer that answers were recorded with, as far as they occur in them."""

    vocabulary = 49_152

    def __init__(self, content):
        every = [*content, *(each for one in content for each in one["top_logprobs"])]
        self._bytes = {one["id"]: bytes(one["bytes"]) for one in every}
        self._ids = {text: id for id, text in self._bytes.items()}
        self._written = {bytes(one["bytes"]): one["id"] for one in content}

    def of(self, id):
        return self._bytes.get(id)

    def id_of(self, text):
        return self._ids.get(text)

    def decode(self, ids):
        return b"".join(self._bytes[id] for id in ids).decode()

    def encode(self, text):
        """The longest of the tokens that were written, from left to right."""
        found, rest = [], text.encode()
        while rest:
            longest = max((one for one in self._written if rest.startswith(one)), key=len)
            found.append(self._written[longest])
            rest = rest[len(longest) :]
        return found


ANSWERS = {
    "llama-cpp-write": lambda answer: answer["completion_probabilities"],
    "llama-cpp-chat": lambda answer: answer["choices"][0]["logprobs"]["content"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_texts_and_ids_of_a_real_answer_are_the_same_tokens(name):
    content = ANSWERS[name](recorded(name))
    read = WrittenReader(SmolLM2(content), [2], "`teachers.big.server`")
    by_ids = read(content, ended=False)
    nameless = [
        {**one, "id": None, "top_logprobs": [{**each, "id": None} for each in one["top_logprobs"]]} for one in content
    ]
    by_texts = read(nameless, ended=False)
    assert by_ids.ids == by_texts.ids == [one["id"] for one in content]
    for one, ids, told in zip(content, by_texts.scored.ids, by_texts.scored.log_probs, strict=True):
        assert [*ids[told > -np.inf]] == [each["id"] for each in one["top_logprobs"] if each["bytes"]]
    assert (by_ids.scored.log_probs > -np.inf).all()
    assert by_ids.scored.log_probs[0][0] == content[0]["logprob"]


class PiecesOfAnAnswer(SmolLM2):
    """As if each text of an answer were a token."""

    def __init__(self, content):
        every = [*content, *(each for one in content for each in one["top_logprobs"])]
        texts = [*dict.fromkeys(bytes(one["bytes"]) for one in every if one["bytes"])]
        super().__init__([])
        self._ids = {text: id for id, text in enumerate(texts)}
        self._bytes = dict(enumerate(texts))
        self._written = {bytes(one["bytes"]): self._ids[bytes(one["bytes"])] for one in content}


def test_a_chat_of_vllm_is_read_by_its_texts():
    content = recorded("vllm-chat")["choices"][0]["logprobs"]["content"]
    found = WrittenReader(PiecesOfAnAnswer(content), [2], "`teachers.big.server`")(content, ended=False)
    assert found.fault is None
    assert len(found.ids) == len(content)
    assert found.scored.label_log_probs.tolist() == [one["logprob"] for one in content]
    # vLLM gives no text of a special token, so that it is not known which it is.
    nameless = sum(not each["bytes"] for one in content for each in one["top_logprobs"])
    assert (found.scored.log_probs == -np.inf).sum() == nameless > 0
