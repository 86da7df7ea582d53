"""The scripts of docs/from-trl.md run, on tiny models and samples."""

import re
from pathlib import Path

import datasets
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from potstill.data.labels import IGNORE_INDEX
from potstill.training import trl_arguments
from tiny import documents, llama, tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "from-trl.md").read_text(encoding="utf-8")
SCRIPTS = [block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "from trl" not in block]
AS_TOYS = {
    "bf16=True": "use_cpu=True, report_to='none', max_steps=2",
    # A model with random weights never ends an answer, and its pre-flight speaks against it.
    "max_new_tokens=128": "max_new_tokens=8, preflight='warn'",
}
TEMPLATE = (
    "{% for one in messages %}{{ one.role }}\n{{ one.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
TALK = [{"role": role, "content": f"{role} crosses the old bridge"} for role in ("user", "assistant") * 2]
DATA = {
    "trl-lib/Capybara": [{"messages": TALK}, {"messages": TALK[:2]}] * 4,
    "trl-lib/tldr": [{"prompt": text[:30], "completion": text[30:70]} for text in documents(8)],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that the page's scripts define, run in order in a folder of their own."""
    folder, names = tmp_path_factory.mktemp("from-trl"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(DATA[name]))
        for name, model in {"0.5B": llama(seed=1, layers=2), "1.5B": llama()}.items():
            model.save_pretrained(f"Qwen/Qwen2.5-{name}-Instruct")
            told = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
            told.chat_template = TEMPLATE
            told.save_pretrained(f"Qwen/Qwen2.5-{name}-Instruct")
        trained = []
        for script in SCRIPTS:
            for given, toy in AS_TOYS.items():
                script = script.replace(given, toy)
            exec(compile(script, "docs/from-trl.md", "exec"), names)
            trained.append(names["trainer"])
        return folder, names, trained


def test_the_page_has_two_scripts():
    assert len(SCRIPTS) == 2


def test_the_first_script_learns_the_last_answer_and_saves_a_student(ran):
    folder, _, (distilled, _) = ran
    assert distilled.state.global_step > 0
    assert (folder / "distil" / "rollouts.jsonl.gz").exists()
    read = tokenizer().decode([label for label in distilled.train_dataset[0]["labels"] if label != IGNORE_INDEX])
    assert read == "assistant crosses the old bridge<|endoftext|>"
    saved = AutoModelForCausalLM.from_pretrained(folder / "distil" / "student")
    assert all(
        torch.equal(one, other) for one, other in zip(saved.parameters(), distilled.model.parameters(), strict=True)
    )


def test_the_second_script_trains_an_adapter(ran):
    _, _, (_, adapted) = ran
    assert adapted.state.global_step > 0
    assert isinstance(adapted.model, PeftModel)


@pytest.mark.parametrize("name", [*trl_arguments._ELSEWHERE, *trl_arguments._IGNORED])
def test_every_argument_that_is_refused_is_on_the_page(name):
    assert f"`{name}`" in PAGE
