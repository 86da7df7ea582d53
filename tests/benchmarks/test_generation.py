"""Both sides of the section write the same tokens, of the scripted lengths."""

from benchmarks.generation import END, LENGTHS, continuous, fixed, scripted
from tiny import llama


def test_both_write_the_same_answers_of_the_scripted_lengths():
    work = scripted(llama(max_position_embeddings=512), questions=5, samples=2, batch_size=4)
    found = continuous(work)
    assert found == fixed(work)
    assert {key: len(ids) for key, ids in found.items()} == work.lengths
    assert all(ids.index(END) == len(ids) - 1 for ids in found.values())


def test_samples_of_a_question_share_its_prompt_and_have_lengths_of_their_own():
    work = scripted(llama(), questions=5, samples=3, batch_size=4)
    assert len({tuple(one.prompt_ids) for one in work.tasks}) == 5
    assert sorted(work.lengths.values()) == sorted(answer for _, answer in LENGTHS[:15])
