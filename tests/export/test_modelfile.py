import pytest
from jinja2 import Environment, TemplateError

from potstill.export.modelfile import CHATS, modelfile, turns_of

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ {'system': 'S: ', 'user': 'U: ', 'assistant': 'A: '}[m['role']] + m['content'] }}"
    "{{ '</s>' if m['role'] == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
OF_THE_LAST_TURN = (
    "{% for m in messages %}{{ m['role'] + ':' + (m['content'] if loop.last else '...') }}{% endfor %}"
    "{% if add_generation_prompt %}A{% endif %}"
)


def renders(template):
    def refuse(why):
        raise TemplateError(why)

    compiled = Environment(autoescape=False).from_string(template, {"raise_exception": refuse})
    return lambda messages, to_answer: compiled.render(messages=messages, add_generation_prompt=to_answer)


@pytest.mark.parametrize("template", [CHATML, PLAIN])
def test_the_turns_give_what_the_template_gives(template):
    render = renders(template)
    turns = turns_of(render)
    assert all(turns.render(chat) == render(chat, True) for chat in CHATS)


def test_a_template_without_a_system_has_no_turn_for_it():
    turns = turns_of(renders(GEMMA))
    assert list(turns.around) == ["user", "assistant"]
    assert turns.to_answer == "<start_of_turn>model\n"


def test_a_template_that_is_more_than_its_turns_has_no_modelfile():
    assert turns_of(renders(OF_THE_LAST_TURN)) is None


def test_a_modelfile_has_the_template_and_every_stop():
    text = modelfile("m-Q8_0.gguf", turns_of(renders(CHATML)), "", ["<|endoftext|>", "<|im_end|>"])
    assert text == (
        'FROM ./m-Q8_0.gguf\nTEMPLATE """{{- range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n'
        '{{ .Content }}<|im_end|>\n{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
        '<|im_start|>assistant\n"""\nSYSTEM """Be kind."""\n'
        'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n'
    )


def test_a_model_without_a_template_continues_text():
    assert modelfile("m.gguf", None, " ", ["</s>"]) == (
        'FROM ./m.gguf\nTEMPLATE """ {{ .Prompt }}"""\nPARAMETER stop "</s>"\n'
    )
