"""Responses are the same alone and with others, resumed or not, and follow the recipe."""

import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from potstill.errors import UserError
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import (
    NamedModel,
    Response,
    _Shown,
    check_context_length,
    responses,
    streamed_response,
    tasks,
)
from potstill.recipe.answers import Answers
from potstill.recipe.generate import Generate
from tiny import gpt2, llama, padded, tokenizer

ASKED = [Request(f"q{length}", list(range(20, 20 + length))) for length in (3, 17, 1, 8, 9)]
GREEDY = Decoding(max_new_tokens=12, batch_size=2)
DRAWN = Decoding(max_new_tokens=6, batch_size=4, samples=3, temperature=0.9, top_p=0.95, seed=7)


def that_ends(model, *tokens, factor=1.6):
    """Make some tokens likelier, for example the end token, so that some responses end and others do not."""
    with torch.no_grad():
        for token in tokens or (0,):
            model.get_output_embeddings().weight[token] *= factor
    return model


@pytest.fixture(scope="module")
def model():
    return that_ends(llama())


def written(model, asked=ASKED, decoding=GREEDY, done=(), reader=None):
    found = responses(
        NamedModel(model, reader or tokenizer(), "the model"), asked, decoding, done, key="answers.max_new_tokens"
    )
    return [one for batch in found for one in batch]


def in_order(found):
    return sorted(found, key=lambda one: one.key)


@torch.no_grad()
def naively(model, one, limit, ends=(0,)):
    """Greedy decoding of one prompt, without padding or cache."""
    ids = list(one.prompt_ids)
    while len(ids) < len(one.prompt_ids) + limit:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    ended = ids[-1] in ends
    new = ids[len(one.prompt_ids) : len(ids) - ended]
    text = tokenizer().decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Response(one.id, 0, text, len(new), not ended)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_greedy_responses_are_those_to_each_question_alone(make):
    model = make() if make is gpt2 else that_ends(make())
    expected = in_order(naively(model, one, 12) for one in ASKED)
    for batch_size in (1, 2, 5):
        assert in_order(written(model, decoding=Decoding(12, batch_size))) == expected
    if make is llama:
        assert {one.hit_limit for one in expected} == {True, False}, "both cases are here"


def test_a_turn_s_end_and_the_end_of_text_both_end_a_response():
    chat = deepcopy(tokenizer())
    chat.chat_template = "{% for message in messages %}{{ message.content }}<|pad|>{% endfor %}"
    model = that_ends(llama(), 0, 1, factor=2.5)
    expected = in_order(naively(model, one, 12, ends=(0, 1)) for one in ASKED)
    assert in_order(written(model, reader=chat)) == expected
    assert expected != in_order(naively(model, one, 12) for one in ASKED)


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_a_checkpoint_s_own_settings_decide_nothing_and_are_left_to_it(model, decoding, capfd):
    expected, own = written(model, decoding=decoding), model.generation_config
    loud = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=2,
        min_p=0.5,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        min_new_tokens=9,
        max_length=4,
        eos_token_id=[5, 6],
        suppress_tokens=[0],
        bad_words_ids=[[40]],
        use_cache=False,
    )
    model.generation_config = loud
    before = loud.to_dict()
    capfd.readouterr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert written(model, decoding=decoding) == expected
        assert model.generation_config is loud
        assert loud.to_dict() == before
    finally:
        model.generation_config = own
    assert capfd.readouterr() == ("", "")


def test_stopped_after_any_response_it_goes_on_to_the_same(model):
    whole = written(model, decoding=DRAWN)
    assert len(whole) == len({one.key for one in whole}) == 15
    for stopped in range(1, 15, 3):
        torch.manual_seed(stopped)
        before = torch.get_rng_state()
        done = {one.key for one in whole[:stopped]}
        assert written(model, decoding=DRAWN, done=done) == whole[stopped:]
        assert torch.equal(torch.get_rng_state(), before), "the global random state is unchanged"


def test_a_response_that_is_done_ends_the_work(model, monkeypatch):
    done = {one.key for one in tasks(ASKED, DRAWN)}
    monkeypatch.setattr(type(model), "forward", None)
    assert written(model, decoding=DRAWN, done=done) == []


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_neighbours_and_batches_change_no_response(model, decoding):
    expected = in_order(written(model, decoding=decoding))
    for size in (1, 3, 50):
        assert in_order(written(model, decoding=replace(decoding, batch_size=size))) == expected
    alone = [response for one in ASKED for response in written(model, [one], decoding)]
    assert in_order(alone) == expected


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_a_model_that_cannot_continue_rows_together_gives_the_same_responses(model, decoding, monkeypatch):
    expected = in_order(written(model, decoding=decoding))
    monkeypatch.setattr("potstill.generation.generate.continues_rows", lambda model, longest: False)
    whole = written(model, decoding=decoding)
    assert in_order(whole) == expected
    done = {one.key for one in whole[:4]}
    assert written(model, decoding=decoding, done=done) == whole[4:]


def test_each_sample_has_random_numbers_of_its_own(model):
    few, more = replace(DRAWN, samples=2), replace(DRAWN, samples=4)
    assert set(written(model, decoding=few)) <= set(written(model, decoding=more))


def test_samples_differ_and_so_do_seeds(model):
    found = written(model, decoding=DRAWN)
    assert len({one.response for one in found if one.id == "q17"}) > 1
    assert found != written(model, decoding=replace(DRAWN, seed=8))


def test_the_most_probable_token_alone_is_the_greedy_one(model):
    for only in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        one_left = Decoding(**{"max_new_tokens": 12, "batch_size": 2, "temperature": 0.9, **only})
        assert written(model, decoding=one_left) == written(model)


def test_tokens_are_drawn_from_all_of_them_unless_told():
    flat = llama()
    torch.nn.init.normal_(flat.lm_head.weight, std=1e-3)
    drawn = {"max_new_tokens": 1, "batch_size": 500, "samples": 500, "temperature": 1.0}
    distinct = {one.response for one in written(flat, ASKED[:1], Decoding(**drawn))}
    assert len(distinct) > 100, "and not from transformers' own 50"
    assert len({one.response for one in written(flat, ASKED[:1], Decoding(**drawn, top_k=10))}) <= 10


def test_rows_of_a_head_that_no_token_has_are_never_written(model):
    wider = padded(that_ends(llama()), 320)
    assert int(wider(torch.tensor([ASKED[0].prompt_ids])).logits[0, -1].argmax()) >= 300
    assert written(wider) == written(model)


def test_an_adapter_responds_as_the_model_it_merges_into():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    plain = written(that_ends(llama()))
    adapted = peft.get_peft_model(that_ends(llama()), config).eval()
    adapted.base_model.model.generation_config.repetition_penalty = 3.0
    found = written(adapted)
    assert found == written(adapted.merge_and_unload())
    assert found != plain


@given(lengths=st.lists(st.integers(1, 9), max_size=9), samples=st.integers(1, 3))
def test_long_prompts_come_first_and_a_question_s_samples_one_after_another(lengths, samples):
    asked = [Request(str(at), [0] * length) for at, length in enumerate(lengths)]
    found = tasks(asked, Decoding(5, 2, samples))
    keys = [one.key for one in found]
    assert sorted(keys) == sorted((one.id, sample) for one in asked for sample in range(samples))
    assert [len(one.prompt_ids) for one in found] == sorted(lengths * samples, reverse=True)
    assert [sample for _, sample in keys] == [*range(samples)] * len(lengths)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_too_few_positions_are_told_before_anything_is_written(make, monkeypatch):
    model = make()
    fits = Decoding(max_new_tokens=111, batch_size=2)
    check_context_length(model.config, ASKED, fits.max_new_tokens, "student", "answers.max_new_tokens")
    monkeypatch.setattr(type(model), "forward", None)
    with pytest.raises(UserError) as told:
        written(model, decoding=Decoding(max_new_tokens=112, batch_size=2))
    assert str(told.value) == (
        "`answers.max_new_tokens` is 112, and the model has only 128 positions, and the prompt of question q17 "
        "takes 17 of them; lower it, or shorten the prompt"
    )


def test_nothing_asked_is_nothing_written(model):
    assert written(model, []) == []


def test_a_recipe_s_sections_say_how():
    drawn = Generate(by="t", samples=2, temperature=0.5, top_p=0.9, top_k=9, seed=4, max_new_tokens=8, batch_size=3)
    assert Decoding.of(drawn) == Decoding(8, 3, 2, 0.5, 0.9, 9, 4, "auto")
    assert Decoding.of(Answers(max_new_tokens=8, engine="vllm")) == Decoding(8, 32, engine="vllm")


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("decoding", [GREEDY, replace(DRAWN, samples=1)], ids=["greedy", "drawn"])
def test_a_streamed_response_is_the_same_piece_by_piece(make, decoding):
    model = that_ends(make())
    expected = {one.id: one for one in written(model, decoding=replace(decoding, batch_size=1))}
    for request in ASKED:
        pieces: list[str] = []
        found = streamed_response(NamedModel(model, tokenizer(), "the model"), request, decoding, pieces.append)
        assert found == expected[request.id]
        assert "".join(pieces) == found.response
        assert "" not in pieces


def test_a_streamed_character_of_several_tokens_is_shown_whole():
    ids = tokenizer()("naïve — ok", add_special_tokens=False)["input_ids"]
    pieces: list[str] = []
    shown = _Shown(tokenizer(), [0], pieces.append)
    for at, token in enumerate([[1, 2], *([one] for one in ids), [0]]):
        shown.put(torch.tensor(token))
        assert "\ufffd" not in "".join(pieces), at
    shown.end()
    assert "".join(pieces) == "naïve — ok"
    assert len(pieces) > 3
