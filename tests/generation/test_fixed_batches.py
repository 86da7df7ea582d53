"""What `generate` writes is what was chosen, up to the end of each response."""

import pytest
import torch
from transformers import GenerationConfig

from families import NOT_TOGETHER
from potstill.generation.decoding import Decoding, Task, TokenChoice
from potstill.generation.fixed_batches import FixedBatches
from tiny import llama

ENDS = [0, 5, 6, 7, 8, 9]
TASKS = [Task((f"q{length}", 0), list(range(20, 20 + length))) for length in (17, 9, 3)]
GREEDY = Decoding(max_new_tokens=12, batch_size=3)


def written(model, decoding=GREEDY, tasks=TASKS):
    writer = FixedBatches(model, TokenChoice(decoding, ENDS, []), len(tasks), pad=1)
    return {one.key: one.ids for ended in writer.write(tasks) for one in ended}


@pytest.mark.parametrize("make", [llama, *NOT_TOGETHER.values()], ids=["llama", *NOT_TOGETHER])
def test_each_response_ends_at_its_own_end(make):
    model = make()
    found = written(model)
    for one in TASKS:
        ids = torch.tensor([one.prompt_ids])
        settings = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=ENDS, pad_token_id=1)
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert found[one.key] == plain[0, len(one.prompt_ids) :].tolist()


def test_draws_depend_on_neither_the_batch_nor_the_state_of_the_process():
    drawn = Decoding(12, 3, temperature=1.5)
    torch.manual_seed(1)
    together = written(llama(), drawn)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    model = llama()
    torch.set_rng_state(before)
    assert {key: ids for one in TASKS for key, ids in written(model, drawn, [one]).items()} == together
    assert torch.equal(torch.get_rng_state(), before)
    assert together != written(model)


def test_a_model_that_writes_rows_one_by_one_gets_batches_of_one():
    model = llama()
    model.most_rows = 1
    assert FixedBatches(model, TokenChoice(GREEDY, ENDS, []), 16, pad=1).block_size == 1
