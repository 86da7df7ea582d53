"""Packed samples with document attention: the same training as on each document alone."""

import copy

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from potstill import HiddenLoss
from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.targets.content_keys import batch_keys
from tiny import VOCABULARY, gpt2, gpt_neox, llama
from toy_training import KL_AND_CE, assert_equal, captured, packed_rows, samples, trained, trainer

STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
STUDENTS = {
    "llama": lambda: llama(seed=1, layers=2),
    "gpt2": lambda: gpt2(seed=1, layers=2, **STILL),
    "gpt_neox": lambda: gpt_neox(seed=1, layers=2),
}
WITH_LAYERS = [*KL_AND_CE, HiddenLoss(weight=0.1)]


@pytest.fixture
def documents():
    return [row["input_ids"] for row in samples(12, seed=11)]


def once(folder, student, rows, **given):
    """The weights after one step on all the rows."""
    given = {"train_dataset": rows, "per_device_train_batch_size": len(rows), "max_steps": 1, **given}
    return trained(folder, student, **given)


@pytest.mark.parametrize("family", STUDENTS)
def test_a_step_is_that_on_each_document_alone(tmp_path, documents, family):
    whole, alone = packed_rows(documents)
    assert len(alone) > len(whole) > 3
    given = {"teacher": llama(), "losses": WITH_LAYERS}
    expected = once(tmp_path, STUDENTS[family](), alone, **copy.deepcopy(given))
    assert_equal(once(tmp_path, STUDENTS[family](), whole, **copy.deepcopy(given)), expected, tolerance=2e-6)
    across = [{"input_ids": row["input_ids"]} for row in whole]
    found = once(tmp_path, STUDENTS[family](), across, **given)
    assert max((found[name] - expected[name]).abs().max() for name in found) > 1e-3


def test_captured_targets_are_those_of_each_document_alone(tmp_path, documents):
    whole, alone = packed_rows(documents)
    store = captured(tmp_path / "store", llama(), whole)
    expected = once(tmp_path, STUDENTS["llama"](), alone, teacher=llama())
    assert_equal(once(tmp_path, STUDENTS["llama"](), whole, teacher=store), expected, tolerance=2e-6)


def test_targets_captured_across_documents_are_not_found_for_separate_documents(tmp_path, documents):
    whole, _ = packed_rows(documents)
    store = captured(tmp_path / "store", llama(), [{"input_ids": row["input_ids"]} for row in whole])
    with pytest.raises(UserError, match="captured"):
        once(tmp_path, STUDENTS["llama"](), whole, teacher=store)


def test_keys_differ_when_the_teacher_saw_other_documents_even_for_the_same_labels():
    collate, ids = Collator(0), [5, 6, 7, 8, 9, 10]
    learned = [-100, 6, -100, 8, -100, 10]
    ways = [[6], [2, 4], [4, 2], [2, 2, 2]]
    keys = {key for sizes in ways for key in batch_keys(collate([_row(ids, learned, sizes)]))}
    assert len(keys) == len(ways)
    plain = {"input_ids": ids, "labels": learned}
    assert batch_keys(collate([plain])) == batch_keys(collate([_row(ids, learned, [6])]))
    # Padding is no content.
    long = _row(list(range(5, 25)), list(range(5, 25)), [20])
    assert batch_keys(collate([_row(ids, learned, [2, 4]), long]))[0] in keys


def _row(ids, labels, sizes):
    return {"input_ids": ids, "labels": labels, "documents": sizes}


def test_evaluation_reads_documents_apart_too(tmp_path, documents):
    whole, alone = packed_rows(documents)
    losses = [
        trainer(tmp_path, teacher=llama(), eval_dataset=rows, per_device_eval_batch_size=64).evaluate()["eval_loss"]
        for rows in (whole, alone)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_predicted_logits_are_those_of_each_document_alone(tmp_path, documents):
    whole, _ = packed_rows(documents)
    one = trainer(tmp_path, teacher=llama())
    found = torch.from_numpy(one.predict(whole[:1]).predictions)[0]
    first, second = whole[0]["documents"][:2]
    ids = torch.tensor([whole[0]["input_ids"][first : first + second]])
    with torch.no_grad():
        torch.testing.assert_close(found[first : first + second], one.model.eval()(input_ids=ids).logits[0])


def test_a_recurrent_student_or_teacher_is_refused(tmp_path, documents):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "initializer_range": 0.2}
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **shape))
    whole, _ = packed_rows(documents)
    with pytest.raises(UserError, match=r"the teacher \(mamba\) reads across documents"):
        trainer(tmp_path, teacher=copy.deepcopy(recurrent), train_dataset=whole)
    with pytest.raises(UserError, match=r"the student \(mamba\) reads across documents"):
        trainer(tmp_path, recurrent, teacher=llama(), train_dataset=whole)
    sized = [{"input_ids": row["input_ids"], "seq_lengths": row["documents"]} for row in whole]
    for rows in (whole, sized):
        with pytest.raises(UserError, match=r"the teacher \(mamba\) reads across documents"):
            captured(tmp_path / "store", recurrent, rows)
