"""A dialogue: what a model reads of it, what is remembered, and that what is shown is what was written."""

import re
from copy import deepcopy
from dataclasses import replace

import pytest

import toy_chat
from potstill.errors import UserError
from potstill.generation.decoding import Decoding
from potstill.generation.dialogue import Dialogue, by_chat_template, by_question, by_text
from potstill.generation.generate import NamedModel
from potstill.recipe.strategies import Prompt
from tiny import llama
from toy_chat import chat_tokenizer

DECODING = Decoding(max_new_tokens=8, batch_size=1)


@pytest.fixture(scope="module")
def model():
    return llama(vocab_size=len(chat_tokenizer()), max_position_embeddings=640)


@pytest.fixture
def asked(model):
    tokenizer = deepcopy(chat_tokenizer())
    tokenizer.chat_template = toy_chat.template("chatml").text
    return NamedModel(model, tokenizer, "student")


def saying(model, text, monkeypatch):
    """Make a model write this text and then what it likes. Returns the prompts that it was asked."""
    prompts, forward = [], model.forward
    ids = chat_tokenizer()(text, add_special_tokens=False)["input_ids"]

    def write(input_ids, **others):
        if input_ids.shape[1] > 1 or not prompts:
            prompts.append(chat_tokenizer().decode(input_ids[0]))
            write.at = 0
        out = forward(input_ids=input_ids, **others)
        out.logits[:, -1] = 0
        out.logits[:, -1, ids[min(write.at, len(ids) - 1)]] = 1
        write.at += 1
        return out

    monkeypatch.setattr(model, "forward", write)
    return prompts


def chat(template="chatml", system=None):
    return Dialogue(by_chat_template(toy_chat.template(template)), system)


def test_a_model_reads_the_conversation_so_far_and_stops_at_the_end_of_its_turn(asked, monkeypatch):
    prompts, shown = saying(asked.model, "salt<|im_end|>", monkeypatch), []
    dialogue = chat(system="Be brief.")
    answer = dialogue.ask("Why?", asked, DECODING, shown.append)
    assert (answer.response, answer.tokens, answer.hit_limit) == ("salt", answer.tokens, False)
    assert "".join(shown) == "salt"
    dialogue.ask("And now?", asked, DECODING, shown.append)
    assert prompts[1] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\nsalt<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )
    dialogue.reset()
    dialogue.ask("So?", asked, DECODING, shown.append)
    assert prompts[2].count("user") == 1
    assert "Be brief." in prompts[2]


def test_what_a_stop_or_an_error_cuts_off_is_forgotten(asked, monkeypatch):
    saying(asked.model, "salt<|im_end|>", monkeypatch)
    dialogue = chat()
    dialogue.ask("Why?", asked, DECODING, str)
    before = list(dialogue.messages)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dialogue.ask("And now?", asked, DECODING, stop)
    with pytest.raises(UserError, match=r"the conversation has .* tokens, and student has only 640 positions"):
        dialogue.ask("why " * 640, asked, DECODING, str)
    assert dialogue.messages == before


def test_reasoning_that_a_template_drops_from_earlier_turns_is_not_read_again(asked, monkeypatch):
    prompts = saying(asked.model, "<think>\nClouds.\n</think>\n\nIt rains.<|im_end|>", monkeypatch)
    dialogue = chat("qwen")
    limit = Decoding(max_new_tokens=60, batch_size=1)
    assert "Clouds." in dialogue.ask("Why?", asked, limit, str).response
    dialogue.ask("And now?", asked, limit, str)
    assert "It rains." in prompts[1]
    assert "Clouds." not in prompts[1]


def test_an_answer_that_finds_no_end_is_cut_at_the_limit_or_at_the_last_position(asked, monkeypatch):
    saying(asked.model, "salt", monkeypatch)
    answer = chat().ask("Why?", asked, DECODING, str)
    assert (answer.hit_limit, answer.tokens) == (True, DECODING.max_new_tokens)
    answer = chat().ask("Why?", asked, Decoding(max_new_tokens=10_000, batch_size=1), str)
    assert answer.hit_limit
    assert 0 < answer.tokens < 640


def test_without_a_template_a_text_is_continued_and_stands_alone(asked, monkeypatch):
    prompts = saying(asked.model, " salt", monkeypatch)
    asking = by_text(asked.tokenizer)
    dialogue = Dialogue(asking)
    dialogue.ask("Once upon", asked, DECODING, str)
    dialogue.ask("Another", asked, DECODING, str)
    assert prompts == ["<s>Once upon", "<s>Another"]
    assert re.search("continue", asking.about)
    assert not asking.remembers


def test_a_question_is_asked_in_the_recipe_s_prompt(asked, monkeypatch):
    prompts = saying(asked.model, "salt<|im_end|>", monkeypatch)
    prompt = Prompt(system="Count.", user="Q: {{ question }}")
    dialogue = Dialogue(by_question(asked.tokenizer, prompt, "strategies.base.student"))
    for said in ("How many?", "How much?"):
        dialogue.ask(said, asked, DECODING, str)
    assert prompts[1].endswith("Count.<|im_end|>\n<|im_start|>user\nQ: How much?<|im_end|>\n<|im_start|>assistant\n")
    other = by_question(asked.tokenizer, Prompt(user="{{ question }} {{ hint }}"), "strategies.base.student")
    with pytest.raises(UserError, match=r"`strategies.base.student.user` uses the field `hint`"):
        Dialogue(other).ask("How many?", asked, DECODING, str)


def test_a_template_that_refuses_the_system_prompt_says_so(asked):
    refusing = toy_chat.template("chatml")
    text = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + refusing.text
    with pytest.raises(UserError, match=r"refuses the conversation \(no system\)"):
        Dialogue(by_chat_template(replace(refusing, text=text)), "Be brief.").ask("Why?", asked, DECODING, str)
