"""A trainer whose teacher has another tokenizer: the same step however the samples come."""

import copy

import pytest
import torch
from peft import LoraConfig

from potstill import DistilTrainer, Loss
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.losses import span_blocks, span_scores
from potstill.losses.span_passes import numbers_of_rows
from tiny import VOCABULARY, documents, llama, padded, tokenizer
from tokenizer_zoo import folding, unfolded
from tokenizer_zoo import trained as other_tokenizer
from toy_training import Killed, arguments, assert_equal, left_padded, packed_rows, shuffled, trained, trainer, weights

LOSSES = [Loss("alm", 0.7), Loss("uld", 0.1, 2.0), Loss("shared_tokens", 0.2), Loss("cross_entropy", 0.3)]


def ids_of(count, seed=5):
    found = TokenBytes(tokenizer(), "tiny").read(unfolded(count, seed=seed))
    return [[0, *one.ids.tolist()] for one in found]


def rows(count=8):
    return [{"input_ids": ids[: 20 + 9 * n]} for n, ids in enumerate(ids_of(count))]


def texts():
    return [{"text": text} for text in documents(8, seed=5)]


def roomy():
    """A student that can read whole texts."""
    return llama(seed=1, layers=2, max_position_embeddings=512)


def teacher():
    return llama(seed=3, vocab_size=400, max_position_embeddings=512)


def given(**more):
    own = {"teacher": teacher(), "teacher_tokenizer": other_tokenizer(), "processing_class": tokenizer()}
    return {"losses": LOSSES, "train_dataset": rows(), "max_steps": 1, **own, **more}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights after one step on one batch of eight."""
    return trained(tmp_path_factory.mktemp("whole"), **given())


def test_accumulated_batches_are_one_batch(tmp_path, whole):
    found = trained(tmp_path, **given(per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert_equal(found, whole, tolerance=1e-5)


def test_the_order_of_samples_changes_nothing(tmp_path, whole):
    assert_equal(trained(tmp_path, **given(train_dataset=shuffled(rows(), 1))), whole, tolerance=1e-5)


def test_the_size_of_chunks_changes_nothing(tmp_path, whole):
    assert_equal(trained(tmp_path, **given(memory_budget=40_000)), whole, tolerance=1e-5)


def test_padding_of_a_head_gets_no_gradient(tmp_path, whole):
    student = padded(llama(seed=1, layers=2), 320)
    before = weights(student)
    found = trained(tmp_path, student, **given())
    assert torch.equal(found["lm_head.weight"][VOCABULARY:], before["lm_head.weight"][VOCABULARY:])
    cut = {name: weight[:VOCABULARY] if len(weight) == 320 else weight for name, weight in found.items()}
    assert_equal(cut, whole, tolerance=1e-5)


def test_packed_documents_teach_what_they_teach_alone(tmp_path):
    packed, alone = packed_rows(ids_of(6), length=60)
    one = trained(tmp_path, **given(train_dataset=packed, per_device_train_batch_size=len(packed)))
    other = trained(tmp_path, **given(train_dataset=alone, per_device_train_batch_size=len(alone)))
    assert_equal(one, other, tolerance=1e-5)


def test_texts_are_read_by_both(tmp_path):
    one = trainer(tmp_path, roomy(), **given(train_dataset=texts(), max_steps=2))
    one.train()
    logged = one.state.log_history[0]
    assert all(logged[loss.kind] > 0 for loss in LOSSES)


def test_the_logged_numbers_are_means_over_the_students_tokens(tmp_path):
    """Cross-entropy beside a teacher is the cross-entropy of a training without one."""
    beside = trainer(tmp_path, **given())
    beside.train()
    alone = trainer(tmp_path, losses=[Loss("cross_entropy")], train_dataset=rows(), max_steps=1)
    alone.train()
    assert beside.state.log_history[0]["cross_entropy"] == pytest.approx(alone.state.log_history[0]["loss"], rel=1e-5)


def test_an_evaluation_reads_no_teacher(tmp_path):
    one = trainer(tmp_path, eval_dataset=rows(), **given())
    alone = trainer(tmp_path, losses=[Loss("cross_entropy")], train_dataset=rows(), eval_dataset=rows(), max_steps=1)
    assert one.evaluate()["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-6)
    assert not [name for name in next(iter(one.get_eval_dataloader())) if name.startswith("teacher")]


def test_it_learns_what_the_teacher_says(tmp_path):
    """The distance falls on samples that are seen again and again."""
    fields = {"max_steps": 30, "learning_rate": 5e-3, "optim": "adamw_torch"}
    one = trainer(tmp_path, **given(losses=[Loss("alm")], **fields))
    one.train()
    alm = [entry["alm"] for entry in one.state.log_history if "alm" in entry]
    assert alm[-1] < 0.6 * alm[0]


def test_a_teacher_with_too_few_positions_is_refused(tmp_path):
    short = llama(seed=3, vocab_size=400, max_position_embeddings=16)
    with pytest.raises(UserError, match="tokens of the teacher, but that reads only 16"):
        trainer(tmp_path, **given(teacher=short))


def test_a_tokenizer_that_loses_text_is_refused_at_the_trainer(tmp_path):
    other = llama(seed=4, vocab_size=300, max_position_embeddings=512)
    told = r"the tokens of the teacher do not give back \d+\.\d% of the text of the first 8 samples of `train_dataset`"
    with pytest.raises(UserError, match=told):
        trainer(tmp_path, roomy(), **given(teacher=other, teacher_tokenizer=folding(), train_dataset=texts()))


def test_it_is_said_what_is_compared_of_the_training_texts_alone(tmp_path, capsys):
    lost = [{"text": "\u2460"}]
    trainer(tmp_path, roomy(), **given(train_dataset=texts(), eval_dataset=lost))
    said = capsys.readouterr().out
    assert "% of the text of the first 8 samples of `train_dataset` is compared with the teacher, in " in said
    with pytest.raises(UserError, match=r"the tokens of the teacher do not give back 100.0% of"):
        trainer(tmp_path, roomy(), **given(train_dataset=lost))


def test_one_tokenizer_is_refused_at_the_trainer(tmp_path):
    with pytest.raises(UserError, match="use forward_kl"):
        DistilTrainer(
            model=llama(seed=1, layers=2),
            args=arguments(tmp_path),
            teacher=copy.deepcopy(llama()),
            losses=[Loss("alm")],
            train_dataset=rows(),
            processing_class=tokenizer(),
            teacher_tokenizer=tokenizer(),
        )


def test_pads_on_either_side_change_nothing(tmp_path, whole):
    def collate(samples):
        return left_padded([{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in samples])

    assert_equal(trained(tmp_path, **given(data_collator=collate)), whole, tolerance=1e-5)


def test_an_adapter_has_the_gradient_of_the_weights_below_it(tmp_path):
    rate = {"learning_rate": 1e-3, "losses": [Loss("alm")]}
    lora = LoraConfig(r=32, lora_alpha=32, target_modules=["down_proj"], init_lora_weights=False)
    one = trainer(tmp_path, **given(**rate, peft_config=lora))
    adapter = {name: weight for name, weight in one.model.named_parameters() if "lora" in name}
    whole = {name: weight.detach().clone() for name, weight in adapter.items()}
    base = copy.deepcopy(one.model).merge_and_unload().requires_grad_()
    other = trainer(tmp_path, base, **given(**rate))
    before = weights(base)
    one.train()
    other.train()
    place = "model.layers.0.mlp.down_proj.weight"
    gradient = (before[place] - weights(other.model)[place]) / 1e-3
    of_b = next(name for name in adapter if "layers.0" in name and "lora_B" in name)
    a = whole[of_b.replace("lora_B", "lora_A")]
    expected = whole[of_b] - 1e-3 * gradient @ a.T
    torch.testing.assert_close(dict(one.model.named_parameters())[of_b].detach(), expected, rtol=0, atol=1e-6)
    assert (expected - whole[of_b]).abs().max() > 1e-5


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2, "dataloader_num_workers": 1}])
def test_a_killed_training_continues_to_the_same_weights(tmp_path, more):
    saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "train_sampling_strategy": "random"}
    learning = {"optim": "adamw_torch", "learning_rate": 1e-2, "per_device_train_batch_size": 2, **saving, **more}
    whole = trainer(tmp_path / "whole", **given(**learning))
    whole.train()
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "cut", callbacks=[Killed()], **given(**learning)).train()
    again = trainer(tmp_path / "cut", llama(seed=77, layers=2), **given(**learning))
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    logged = [[entry["alm"] for entry in one.state.log_history if "alm" in entry] for one in (whole, again)]
    assert logged[0] == logged[1]


def of_several(**more):
    """Two teachers of other tokenizers than the student's."""
    other = llama(seed=4, vocab_size=300, max_position_embeddings=512)
    theirs = {"teacher": [teacher(), other], "teacher_tokenizer": [other_tokenizer(), folding()]}
    return given(**theirs, **more)


def test_several_teachers_are_each_aligned_by_itself(tmp_path, whole):
    """The first of two teachers with nearly all of the weight teaches what it teaches alone."""
    found = trained(tmp_path, **of_several(teacher_weights=[1e9, 1]))
    assert_equal(found, whole, tolerance=1e-5)
    equal = trainer(tmp_path, **of_several())
    equal.train()
    logged = equal.state.log_history[0]
    for kind in ("alm", "uld", "shared_tokens"):
        each = [logged[f"{kind}/teacher{number}"] for number in range(2)]
        assert logged[kind] == pytest.approx(sum(each) / 2, rel=1e-4)
        assert each[0] != pytest.approx(each[1], rel=0.01)


def test_accumulated_batches_of_several_teachers_are_one_batch(tmp_path):
    one = trained(tmp_path, **of_several())
    other = trained(tmp_path, **of_several(per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert_equal(other, one, tolerance=1e-5)


def test_a_teacher_of_the_students_own_tokenizer_may_stand_beside_another(tmp_path):
    own = {"teacher": [teacher(), llama(max_position_embeddings=512)]}
    own["teacher_tokenizer"] = [other_tokenizer(), tokenizer()]
    one = trainer(tmp_path, **given(losses=[Loss("alm")], **own))
    one.train()
    assert one.state.log_history[0]["alm/teacher1"] > 0


def test_each_row_is_read_by_its_own_teachers(tmp_path):
    """A teacher teaches its rows as if these were all. Its numbers are means over its own tokens."""
    kinds = (["a"], ["b"], ["a", "b"], [])
    named = [{**row, "teachers": kinds[n % 4]} for n, row in enumerate(rows())]
    theirs = of_several(train_dataset=named)
    models = dict(zip("ab", theirs.pop("teacher"), strict=True))
    one = trainer(tmp_path, teacher=models, **theirs)
    one.train()
    logged = one.state.log_history[0]
    for name in "ab":
        mine = [{"input_ids": row["input_ids"]} for row in named if name in row["teachers"]]
        index = "ab".index(name)
        alone = given(teacher=models[name], teacher_tokenizer=theirs["teacher_tokenizer"][index], train_dataset=mine)
        other = trainer(tmp_path, **alone)
        other.train()
        for kind in ("alm", "uld", "shared_tokens"):
            assert logged[f"{kind}/{name}"] == pytest.approx(other.state.log_history[0][kind], rel=1e-4)


def test_logits_of_several_tokenizers_are_not_mixed(tmp_path):
    with pytest.raises(UserError, match="alm averages the losses of teachers, whose tokens differ; leave `mix` out"):
        trainer(tmp_path, **of_several(mix="logits"))


def test_the_logits_of_other_teachers_count_where_it_is_chosen_to_compile(tmp_path):
    one = trainer(tmp_path, **given())
    assert one._logits_of_token == VOCABULARY + 400


@pytest.mark.slow
def test_compiled_a_step_is_the_same(tmp_path, monkeypatch):
    asked, few = [], given(losses=[Loss("alm", 0.7), Loss("cross_entropy", 0.3)])
    for module in (span_blocks, span_scores):
        monkeypatch.setattr(module, "numbers_of_rows", lambda *given: asked.append(given) or numbers_of_rows(*given))
    eager, compiled = (trained(tmp_path / str(how), **few, compile=how) for how in (False, True))
    assert_equal(compiled, eager, tolerance=1e-6)
    # The teacher's logits, and the student's.
    assert [one[4] for one in asked] == [False, False, True, True]
