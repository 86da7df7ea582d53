import pytest

from potstill.errors import UserError
from potstill.servers.api import AskedPrompt, Writing
from potstill.servers.client import Client, Connection
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.openai_chat import NO_MESSAGES, OpenaiChatApi
from servers.faulty_server import MODEL, Reply
from servers.writing_server import chat_words
from tiny import tokenizer

HOW = Writing(16, [0])


def api(server) -> OpenaiChatApi:
    return OpenaiChatApi(Client(Connection("big", server.url), pause=lambda _: None), MODEL, ModelTokens(server.words))


def prompt(server):
    return ModelTokens(server.words).question("why?")


@pytest.mark.parametrize("tells_end", [True, False])
def test_the_tokens_and_the_predictions_of_what_it_writes(writer, tells_end):
    writer.tells_end = tells_end
    found = api(writer).write(prompt(writer), HOW, 3, 5)
    assert found.fault is None
    assert found.ids == [*writer.words.encode("the old town", add_special_tokens=False), 0]
    assert len(found.scored.ids) == len(found.ids)
    assert writer.asked[-1][1]["messages"] == [{"role": "user", "content": "why?"}]


def test_a_conversation_with_tools_is_not_asked_and_stops_nothing(writer):
    found = api(writer).write(AskedPrompt([5, 6]), HOW, 3, 5)
    assert found.fault == NO_MESSAGES
    assert not writer.asked


def test_a_tokenizer_without_a_chat_template_is_refused(writer):
    writer.words = tokenizer()
    try:
        with pytest.raises(UserError, match="has no chat template"):
            api(writer).facts()
    finally:
        writer.words = chat_words()


def changed(usage=(), **fields):
    def fault(server, body):
        reply = server.chat(body)
        reply.content["usage"] |= dict(usage)
        reply.content["choices"][0] |= fields
        return reply

    return fault


WRONG = {
    "another template": (changed({"prompt_tokens": 99}), r"teachers.big.tokenizer.*made 99 tokens"),
    "hidden reasoning": (changed({"completion_tokens": 99}), "wrote 99 tokens of an answer and tells"),
    "no log-probabilities": (changed(logprobs=None), "tells 0 of them"),
    "no usage": (lambda *_: Reply(200, {"choices": [{"finish_reason": "stop", "logprobs": None}]}), "OpenAI's style"),
    "no choices": (lambda *_: Reply(200, {"choices": []}), "OpenAI's style"),
    "a list": (lambda *_: Reply(200, []), "OpenAI's style"),
}


@pytest.mark.parametrize(("fault", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_one_sentence(writer, fault, says):
    writer.always["/v1/chat/completions"] = fault
    with pytest.raises(UserError, match=says) as refused:
        api(writer).write(prompt(writer), HOW, 3, 5)
    assert "\n" not in str(refused.value)


def test_an_answer_that_was_filtered_is_not_learned_and_stops_nothing(writer):
    writer.always["/v1/chat/completions"] = changed(finish_reason="content_filter")
    found = api(writer).write(prompt(writer), HOW, 3, 5)
    assert "content_filter" in found.fault
    assert not found.ids
