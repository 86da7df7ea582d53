"""Samples that the student writes, read by a teacher of another tokenizer."""

import pytest
import torch

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import documents, llama, tokenizer
from tokenizer_zoo import folding, unfolded
from tokenizer_zoo import trained as other_tokenizer
from toy_rollouts import ends_as_without_a_kill, logged, made, on_policy, still, written
from toy_training import assert_equal, captured_spans, rows_of_texts, weights

LOSSES = (Loss("alm", 0.7), Loss("uld", 0.1, 2.0), Loss("shared_tokens", 0.2))


def rows(count=8):
    found = TokenBytes(tokenizer(), "tiny").read(unfolded(count, seed=5))
    return [{"input_ids": [0, *one.ids.tolist()][: 20 + 5 * n]} for n, one in enumerate(found)]


def across(folder, student=None, settings=None, **more):
    """A training of a student that continues the beginnings of texts."""
    asked = on_policy(**{"share": 1, "beginning": 9, "max_new_tokens": 24, **(settings or {})})
    teacher = llama(seed=3, vocab_size=400, max_position_embeddings=512)
    given = {"teacher": teacher, "teacher_tokenizer": other_tokenizer(), "losses": LOSSES, "train_dataset": rows()}
    # A student that has learned nothing would write bytes at random, which are seldom text.
    return made(folder, student or copying(), on_policy=asked, **{**given, "max_steps": 1, **more})


def copying():
    """A student that mostly writes words of the vocabulary: single bytes are improbable."""
    student = still()
    words = [number for number, one in enumerate(TokenBytes(tokenizer(), "tiny").each) if len(one) > 1]
    with torch.no_grad():
        student.lm_head.weight[words] *= 3
    return student


def test_written_samples_teach_what_the_same_samples_in_a_corpus_teach(tmp_path):
    one = across(tmp_path / "a")
    one.train()
    rollouts = one.on_policy.rollouts
    as_corpus = [
        {"input_ids": r.prompt.student + r.ids, "labels": [IGNORE_INDEX] * len(r.prompt.student) + r.ids}
        for r in rollouts
    ]
    other = across(tmp_path / "b", settings={"share": 0}, train_dataset=as_corpus)
    other.train()
    assert_equal(weights(one.model), weights(other.model), tolerance=1e-6)
    for loss in LOSSES:
        (ours,), (theirs,) = logged(one, f"on_policy/{loss.kind}"), logged(other, loss.kind)
        assert ours[f"on_policy/{loss.kind}"] == pytest.approx(theirs[loss.kind], rel=1e-5)
        assert theirs[loss.kind] > 0


def test_the_sizes_of_micro_batches_change_nothing(tmp_path):
    found = []
    for size in (8, 2):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        one = across(tmp_path / str(size), settings={"share": 0.5}, **batch)
        one.train()
        found.append(weights(one.model))
    assert_equal(found[0], found[1], tolerance=1e-5)


def test_a_killed_training_continues_to_the_same_weights(tmp_path):
    ends_as_without_a_kill(tmp_path, across, llama(seed=77, layers=2))


def test_the_log_and_the_evidence_have_what_is_known_of_other_tokens(tmp_path):
    one = across(tmp_path, still())
    one.train()
    (entry,) = logged(one, "on_policy/lost_text", "on_policy/entropy", "on_policy/kl", "on_policy/overlap")
    # Bytes at random are seldom text.
    assert 0 < entry["on_policy/lost_text"] <= 1
    assert entry["on_policy/entropy"] > 0
    assert entry["on_policy/kl"] is entry["on_policy/overlap"] is None
    assert all("student_log_probs" in row and "reverse_kl" not in row for row in written(tmp_path))


@pytest.mark.parametrize("by_row", [False, True])
def test_several_teachers_read_what_the_student_wrote(tmp_path, by_row):
    models = [llama(seed=seed, vocab_size=size, max_position_embeddings=512) for seed, size in ((3, 400), (4, 300))]
    more = {"teacher": models, "teacher_tokenizer": [other_tokenizer(), folding()]}
    if by_row:
        kinds = (["a"], ["b"], ["a", "b"], [])
        more["teacher"] = dict(zip("ab", models, strict=True))
        more["train_dataset"] = [{**row, "teachers": kinds[n % 4]} for n, row in enumerate(rows())]
        more["losses"] = (*LOSSES, Loss("cross_entropy"))
    one = across(tmp_path, **more)
    one.train()
    names = ["on_policy/alm/a", "on_policy/alm/b"] if by_row else ["on_policy/alm/teacher0", "on_policy/alm/teacher1"]
    (entry,) = logged(one, *names)
    assert all(entry[name] > 0 for name in names)
    assert entry[names[0]] != entry[names[1]]


def test_an_answer_is_cut_where_the_teacher_has_no_more_positions(tmp_path):
    short = llama(seed=3, vocab_size=400, max_position_embeddings=16)
    few = [{"input_ids": row["input_ids"][:12]} for row in rows()]
    one = across(tmp_path, teacher=short, train_dataset=few)
    one.train()
    (entry,) = logged(one, "on_policy/alm")
    assert entry["on_policy/alm"] >= 0


def test_a_pre_flight_is_not_measured_across_tokenizers(tmp_path, capsys):
    across(tmp_path, settings={"preflight": "refuse"}).train()
    assert "pre-flight: not measured, because it compares token by token" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["policy_gradient", "reverse_kl"])
def test_losses_of_tokens_are_refused_by_name(tmp_path, kind):
    with pytest.raises(UserError, match=rf"alm is for .* and {kind} of `on_policy.losses` needs"):
        across(tmp_path, settings={"losses": [{"kind": kind}]})


def test_captured_spans_know_no_written_sample(tmp_path):
    texts = documents(4, seed=5)
    store = captured_spans(tmp_path / "s", texts)
    given = {"teacher": store, "teacher_tokenizer": None, "train_dataset": rows_of_texts(texts)}
    student = llama(seed=1, layers=2, max_position_embeddings=512)
    with pytest.raises(UserError, match="`on_policy` needs a teacher that reads what the student writes"):
        across(tmp_path / "t", student, losses=(Loss("alm"), Loss("cross_entropy")), **given)
