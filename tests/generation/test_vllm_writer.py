"""vLLM writes what transformers would, is asked for only where it can, and is refused by a sentence elsewhere."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError
from potstill.generation import vllm_writer
from potstill.generation.decoding import Decoding, Request, Task, TokenChoice
from potstill.generation.generate import NamedModel, responses
from potstill.generation.vllm_writer import VllmWriter, check_installed, writes_with_vllm
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import RolloutWriter
from potstill.recipe.on_policy import OnPolicy
from servers.real_servers import converted, needs
from tiny import gpt2, gpt_neox, llama, padded, tokenizer
from toy_rollouts import made, on_policy
from toy_training import assert_equal, weights

# vLLM's attention on CPUs has heads of 32 numbers and more.
WIDE = {"hidden_size": 128}
FAMILIES = {
    "llama": lambda: llama(**WIDE),
    "tied": lambda: llama(**WIDE, tie_word_embeddings=True),
    "gpt2": lambda: gpt2(n_embd=128),
}
ASKED = [Request(f"q{length}", list(range(20, 20 + length))) for length in (3, 17, 1, 8, 9)]
GREEDY = Decoding(max_new_tokens=12, batch_size=2)
DRAWN = Decoding(max_new_tokens=6, batch_size=4, samples=3, temperature=0.9, top_p=0.95, seed=7)


@pytest.fixture
def fake(monkeypatch):
    """A vLLM that is installed and has a Llama of its own, and that shows with which settings it is asked."""
    files = {"LlamaForCausalLM": "llama", "GPTNeoXForCausalLM": "transformers"}
    known = {name: SimpleNamespace(module_name=f"vllm.model_executor.models.{file}") for name, file in files.items()}
    library = SimpleNamespace(
        ModelRegistry=SimpleNamespace(models=known),
        SamplingParams=lambda **given: given,
    )
    monkeypatch.setattr(vllm_writer, "is_installed", lambda: True)
    monkeypatch.setattr(vllm_writer, "_vllm", lambda: library)
    return library


def written(model, engine, asked=ASKED, decoding=GREEDY, done=(), reader=None):
    how = Decoding(**{**vars(decoding), "engine": engine})
    found = responses(NamedModel(model, reader or tokenizer(), "the model"), asked, how, done, key="max_new_tokens")
    return sorted((one for batch in found for one in batch), key=lambda one: one.key)


def test_it_is_chosen_by_itself_only_on_a_gpu(fake, monkeypatch):
    assert not writes_with_vllm("auto", llama(), "the model")
    assert writes_with_vllm("vllm", llama(), "the model")
    monkeypatch.setattr(vllm_writer, "device", lambda: torch.device("cuda"))
    assert writes_with_vllm("auto", llama(), "the model")
    assert not writes_with_vllm("auto", gpt2(), "the model")
    assert not writes_with_vllm("transformers", llama(), "the model")


def test_it_is_not_chosen_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(vllm_writer, "is_installed", lambda: False)
    monkeypatch.setattr(vllm_writer, "device", lambda: torch.device("cuda"))
    assert not writes_with_vllm("auto", llama(), "the model")


def test_where_it_is_asked_for_and_not_installed_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(vllm_writer, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"`generate.engine: vllm` needs vLLM, which is not installed here"):
        check_installed("vllm", "generate.engine")
    with pytest.raises(UserError, match="not installed"):
        RolloutWriter(llama(), tokenizer(), OnPolicy(engine="vllm", max_new_tokens=8), 0, None)


def quantised():
    model = llama()
    model.is_quantized = True
    return model


def without_attention():
    model = llama()
    model.config.num_key_value_heads = model.config.num_attention_heads = 0
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], use_dora=True)), "adapter"),
        (quantised, "quantised"),
        (without_attention, "without attention"),
        (gpt2, "vLLM has no GPT2LMHeadModel of its own"),
        (gpt_neox, "vLLM has no GPTNeoXForCausalLM of its own"),
        (torch.nn.Module, "not those of a model of transformers"),
    ],
    ids=["adapter", "quantised", "no attention", "unknown", "by transformers", "other engine"],
)
def test_a_model_that_it_cannot_run_is_refused_and_left_to_transformers(fake, monkeypatch, make, reason):
    with pytest.raises(UserError, match=f"for the model, because .*{reason}.*; choose `engine: transformers`"):
        writes_with_vllm("vllm", make(), "the model")
    monkeypatch.setattr(vllm_writer, "device", lambda: torch.device("cuda"))
    assert not writes_with_vllm("auto", make(), "the model")


def test_a_student_with_a_lora_adapter_is_merged_for_it(fake):
    assert writes_with_vllm("vllm", get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])), "the model")


def test_several_processes_write_with_transformers(fake, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes"):
        writes_with_vllm("vllm", llama(), "the model")


def test_it_is_asked_for_what_the_recipe_says(fake):
    choose = TokenChoice(Decoding(9, 4, temperature=0.7, top_p=0.9, top_k=5, seed=3), ends=[0, 2], never=[300, 301])
    asked = VllmWriter(llama(), choose, 4)._settings(Task(("a", 1), [5]))
    assert asked == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "seed": choose.seed(("a", 1)),
        "max_tokens": 9,
        "stop_token_ids": [0, 2],
        "ignore_eos": True,
        "detokenize": False,
        "logit_bias": {300: -100.0, 301: -100.0},
    }


def test_each_response_has_a_seed_of_63_bits_of_its_own():
    choose = TokenChoice(Decoding(9, 4, temperature=1.0, seed=3), ends=[0], never=[])
    other = TokenChoice(Decoding(9, 4, temperature=1.0, seed=4), ends=[0], never=[])
    seeds = [one.seed((name, sample)) for one in (choose, other) for name in "ab" for sample in range(50)]
    assert len({*seeds}) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("longest", "positions", "room"), [(1, None, 1), (40, None, 64), (64, 128, 64), (65, 100, 100), (129, 128, 129)]
)
def test_room_grows_in_large_steps_up_to_the_positions(longest, positions, room):
    assert vllm_writer._rounded(longest, positions) == room


def seeded_apart():
    with vllm_writer._apart():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        raise RuntimeError("no memory")


def test_random_numbers_of_the_process_stay_as_they_were():
    def drawn():
        return random.random(), np.random.random(), torch.rand(1).item()

    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.random.set_rng_state(states[2])
    with pytest.raises(RuntimeError, match="no memory"):
        seeded_apart()
    assert drawn() == expected


def test_it_is_not_imported_where_it_is_not_used():
    written(llama(), "auto", ASKED[:1])
    assert "vllm" not in sys.modules or vllm_writer.is_installed()


@pytest.mark.servers
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_greedy_responses_are_those_of_transformers(make):
    needs("vllm")
    assert written(make(), "vllm") == written(make(), "transformers")


@pytest.mark.servers
def test_greedy_responses_of_a_real_model_are_those_of_transformers(tmp_path):
    needs("vllm")
    folder = converted(tmp_path / "smollm2")
    model, own = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = ["The capital of France is", "Water boils at", "def add(a, b):"]
    asked = [Request(text, own(text)["input_ids"]) for text in texts]
    assert written(model, "vllm", asked, reader=own) == written(model, "transformers", asked, reader=own)


@pytest.mark.servers
def test_a_model_that_vllm_runs_by_transformers_is_refused():
    needs("vllm")
    with pytest.raises(UserError, match="no GPTNeoXForCausalLM of its own"):
        written(gpt_neox(**WIDE), "vllm")


@pytest.mark.servers
def test_ids_without_a_token_are_never_written():
    needs("vllm")
    model = padded(llama(**WIDE), 320)
    assert written(model, "vllm") == written(model, "transformers")


@pytest.mark.servers
def test_draws_depend_neither_on_neighbours_nor_on_what_is_done():
    needs("vllm")
    model = llama(**WIDE)
    state = torch.random.get_rng_state()
    whole = written(model, "vllm", decoding=DRAWN)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({one.response for one in whole if one.id == "q17"}) > 1
    assert written(model, "vllm", ASKED[1:2], DRAWN) == [one for one in whole if one.id == "q17"]
    done = {one.key for one in whole[:7]}
    assert written(model, "vllm", decoding=DRAWN, done=done) == whole[7:]
    assert written(model, "vllm", decoding=Decoding(**{**vars(DRAWN), "seed": 8})) != whole


@pytest.mark.servers
def test_draws_follow_the_models_probabilities():
    needs("vllm")
    model = llama(**WIDE)
    decoding = Decoding(max_new_tokens=1, batch_size=64, samples=512, temperature=0.7, engine="vllm")
    with torch.no_grad():
        expected = (model(torch.tensor([ASKED[0].prompt_ids])).logits[0, -1] / 0.7).softmax(-1)
    choose = TokenChoice(decoding, ends=[0], never=[])
    writer = VllmWriter(model, choose, 64)
    writer.take_weights(16)
    tasks = [Task(("q", sample), ASKED[0].prompt_ids) for sample in range(512)]
    drawn = [one.ids[0] for ended in writer.write(tasks) for one in ended]
    writer.close()
    found = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / len(drawn)
    # The expected distance of so many draws from their own distribution.
    noise = (expected * (1 - expected) / len(drawn)).sqrt().sum() / 2
    assert (found - expected).abs().sum() / 2 < 2 * noise


def with_lora():
    model = llama(**WIDE)
    # With these weights no two tokens are nearly as likely as each other.
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))


def changed(model, by):
    """The weights of a later step: a full model's, or an adapter's alone."""
    trained = (
        model.lm_head.weight
        if model.lm_head.weight.requires_grad
        else next(weight for name, weight in model.named_parameters() if "lora_B" in name)
    )
    with torch.no_grad():
        trained.copy_(trained.roll(by, 0))


@pytest.mark.servers
@pytest.mark.parametrize("make", [lambda: llama(**WIDE), with_lora], ids=["whole", "lora"])
def test_a_student_in_training_writes_with_its_weights_of_now(make):
    needs("vllm")
    model = make().train()
    prompts = [SamplePrompt([5, 6, 7]), SamplePrompt([8, 9]), SamplePrompt([10, 11, 12, 13])]
    longer = [*prompts, SamplePrompt(list(range(20, 80)))]
    how = {"max_new_tokens": 8, "sampling": {"temperature": 1e-3}}
    ours, its = (RolloutWriter(model, tokenizer(), OnPolicy(engine=one, **how), 0, None) for one in ("auto", "vllm"))
    for step, asked in enumerate((prompts, prompts, longer)):
        keyed = {(str(at), 0): prompt for at, prompt in enumerate(asked)}
        assert its.write(keyed, step) == ours.write(keyed, step)
        changed(model, step + 1)
    its.close()
    assert model.training


@pytest.mark.servers
def test_a_training_learns_from_what_vllm_writes(tmp_path):
    needs("vllm")

    def trained(engine):
        given = on_policy(share=0.5, engine=engine, sampling={"temperature": 1e-3})
        one = made(tmp_path / engine, llama(seed=1, layers=2, **WIDE), on_policy=given)
        one.train()
        return weights(one.model)

    assert_equal(trained("vllm"), trained("transformers"), tolerance=1e-4)
    assert not torch.distributed.is_initialized()
