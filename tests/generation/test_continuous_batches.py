"""Responses are those of `model.generate`, and take fewer and shorter steps."""

import pytest
import torch

from families import TOGETHER
from potstill.generation.continuous_batches import ContinuousBatches
from potstill.generation.decoding import Decoding, Task, TokenChoice
from potstill.generation.fixed_batches import FixedBatches
from tiny import llama, padded

ENDS = [0, 5, 6, 7, 8, 9]
TASKS = [Task((f"q{length}", sample), list(range(20, 20 + length))) for length in (17, 9, 8, 3, 1) for sample in (0, 1)]
GREEDY = Decoding(max_new_tokens=12, batch_size=3)


def written(writer, tasks=TASKS):
    blocks = [tasks[at : at + writer.block_size] for at in range(0, len(tasks), writer.block_size)]
    return {one.key: one.ids for block in blocks for ended in writer.write(block) for one in ended}


def continuous(model, decoding=GREEDY, tasks=TASKS, choose=None):
    choose = choose or TokenChoice(decoding, ENDS, [])
    return ContinuousBatches(model, choose, decoding.batch_size, tasks)


class Scripted(TokenChoice):
    """Ends each response after a length of its own, whatever the logits say."""

    def __init__(self, lengths):
        super().__init__(Decoding(max_new_tokens=1000, batch_size=4), [0], [0])
        self.lengths = lengths

    def random(self, key):
        return iter([*[50] * (self.lengths[key] - 1), 0])

    def __call__(self, logits, randoms):
        return torch.tensor([next(one) for one in randoms])


class Reads:
    """Counts a model's forwards and the tokens that it reads in them."""

    def __init__(self, model):
        self.shapes = []
        model.base_model.register_forward_pre_hook(
            lambda body, args, kwargs: self.count(kwargs["input_ids"]), with_kwargs=True
        )

    def count(self, ids):
        self.shapes.append(tuple(ids.shape))

    @property
    def prompts(self):
        return [shape for shape in self.shapes if shape[1] > 1]

    @property
    def steps(self):
        return [rows for rows, tokens in self.shapes if tokens == 1]


@pytest.mark.parametrize("make", TOGETHER.values(), ids=TOGETHER)
def test_greedy_responses_are_those_of_transformers_generate(make):
    model = make()
    found = written(continuous(model))
    assert found == written(FixedBatches(model, TokenChoice(GREEDY, ENDS, []), 3, pad=1))
    assert set(found) == {one.key for one in TASKS}


def test_greedy_responses_are_those_of_plain_generate_calls():
    model = padded(llama(), 320)
    never = [*range(300, 320)]
    found = written(continuous(model, choose=TokenChoice(GREEDY, ENDS, never)))
    for one in TASKS:
        ids = torch.tensor([one.prompt_ids])
        settings = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": ENDS, "suppress_tokens": never}
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=1, **settings)
        assert found[one.key] == plain[0, len(one.prompt_ids) :].tolist()


def test_an_adapter_writes_as_in_generate():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(llama(), config).eval()
    found = written(continuous(model))
    assert found == written(FixedBatches(model, TokenChoice(GREEDY, ENDS, []), 3, pad=1))
    assert found != written(continuous(llama()))


def test_a_finished_response_makes_room_for_the_next():
    lengths = {(str(at), 0): 40 if at % 4 == 0 else 5 for at in range(16)}
    tasks = [Task(key, [20, 21, 22, 23 + at]) for at, key in enumerate(lengths)]
    model = llama()
    reads = Reads(model)
    found = written(continuous(model, Decoding(1000, 4), tasks, Scripted(lengths)), tasks)
    assert {key: len(ids) for key, ids in found.items()} == lengths
    assert sum(reads.steps) == sum(lengths.values()), "no row is computed that writes nothing"
    assert len(reads.steps) < 100, "fixed batches take 4 * 40"
    assert max(reads.steps) == 4


def test_samples_of_a_question_share_one_reading_of_its_prompt_and_all_share_the_beginning():
    lengths = {(str(question), sample): 3 + sample for question in range(3) for sample in range(7)}
    begin = list(range(100, 130))
    tasks = [Task(key, [*begin, *range(40 + 5 * int(key[0]), 45 + 5 * int(key[0]))]) for key in lengths]
    model = llama()
    reads = Reads(model)
    written(continuous(model, Decoding(1000, 4), tasks, Scripted(lengths)), tasks)
    assert reads.prompts[0] == (1, 30)
    assert sum(rows for rows, _ in reads.prompts[1:]) == 3
    assert {tokens for _, tokens in reads.prompts[1:]} == {4}, "the last token of a prompt is read with the batch"


def test_rows_have_room_for_what_they_may_have_and_no_more_rows_than_responses():
    tasks = [Task(("a", 0), list(range(20, 100)))]
    writer = continuous(llama(max_position_embeddings=256), Decoding(max_new_tokens=12, batch_size=9), tasks)
    written(writer, tasks)
    keys, _ = writer._batch._cache._kept[0]
    assert keys.shape[0] == 1
    assert keys.shape[2] == 128


def test_only_the_prompt_of_the_next_response_stays():
    tasks = [Task((name, sample), [20, 21, 22]) for name in "abc" for sample in (0, 1)]
    writer, kept = continuous(llama(), tasks=tasks), []
    inner = writer._batch.logits
    writer._batch.logits = lambda tokens: (kept.append([*writer._prompts]), inner(tokens))[1]
    written(writer, tasks)
    # Three rows: after a and the first b, the next response is the second b's.
    assert kept[0] == ["b"]
    assert kept[-1] == []


def test_a_block_that_was_left_in_the_middle_is_written_again_alike():
    model = llama()
    writer = continuous(model)
    whole = written(writer)
    next(writer.write(TASKS))
    assert written(writer) == whole


def test_the_gradients_of_whoever_reads_the_responses_stay_on():
    with torch.enable_grad():
        for _ in continuous(llama()).write(TASKS[:3]):
            assert torch.is_grad_enabled()


def test_a_prompt_is_read_without_the_head():
    model = llama()
    heads = []
    model.lm_head.register_forward_pre_hook(lambda head, args: heads.append(args[0].shape[1]))
    written(continuous(model))
    assert set(heads) == {1}, "logits of the token that was read with the batch, and no others"
