import json

import pytest
from datasets import load_from_disk
from transformers import AutoTokenizer

from potstill.run import Run
from potstill.runner import run_recipe
from potstill.words import UserError
from tiny import SEQUENCE_LENGTH, documents, save_corpus, tokenizer, toy_recipe


def _corpus(run):
    folder = run.path("corpus")
    return load_from_disk(folder / "train"), load_from_disk(folder / "held_out")


def _made(folder, *overrides):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, *overrides), run, until="corpus")
    return _corpus(run)


def _tokens(text):
    return [tokenizer().eos_token_id, *tokenizer()(text, add_special_tokens=False).input_ids]


def test_no_held_out_document_is_trained_on(run):
    train, held_out = _corpus(run)
    stream = [token for sample in train["input_ids"] for token in sample]
    texts = tokenizer().decode(stream).split("<|endoftext|>")[1:]
    kept_back = set(held_out["text"])
    # The last document may be cut where the last whole sample ends.
    assert set(texts[:-1]) | kept_back <= set(documents())
    assert len(set(texts[:-1])) + len(kept_back) >= len(documents()) - 1
    assert not kept_back & set(texts)
    assert not any(text.startswith(texts[-1]) for text in kept_back)


def test_packed_samples_are_whole(run):
    train, _ = _corpus(run)
    assert {len(sample) for sample in train["input_ids"]} == {SEQUENCE_LENGTH}


def test_held_out_documents_are_whole(run):
    _, held_out = _corpus(run)
    assert len(held_out) >= 2
    for row in held_out:
        assert row["input_ids"] == _tokens(row["text"])


def test_a_padded_sample_is_the_start_of_one_document(tmp_path):
    train, held_out = _made(tmp_path, "corpus.layout=padded")
    assert len(train) + len(held_out) == len(documents())
    starts = [_tokens(text)[:SEQUENCE_LENGTH] for text in documents()]
    assert all(sample in starts for sample in train["input_ids"])
    assert not {tuple(ids) for ids in train["input_ids"]} & {
        tuple(ids[:SEQUENCE_LENGTH]) for ids in held_out["input_ids"]
    }


def test_a_document_stays_on_its_side_when_the_corpus_grows(tmp_path, run):
    _, before = _corpus(run)
    more = [*reversed(documents()), *documents(40, seed=9), *documents()]
    text = save_corpus(tmp_path / "more.jsonl", more)
    _, after = _made(tmp_path, f"corpus.sources={json.dumps([{'path': str(text)}])}")
    assert set(before["text"]) == set(after["text"]) & set(documents())


def test_training_tokens_are_limited(tmp_path):
    train, held_out = _made(tmp_path, "corpus.train_tokens=100")
    assert sum(map(len, train["input_ids"])) == 100 // SEQUENCE_LENGTH * SEQUENCE_LENGTH
    assert len(held_out) > 2


def test_a_sequence_longer_than_the_teacher_s_positions_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`corpus.sequence_length` is 129, but teacher 'smollm2' has only 128"):
        _made(tmp_path, "corpus.sequence_length=129")


def test_a_corpus_without_a_held_out_document_is_refused(tmp_path):
    text = save_corpus(tmp_path / "one.jsonl", documents(1))
    with pytest.raises(UserError, match=r"`corpus.sources` give 1 documents"):
        _made(tmp_path, f"corpus.sources={json.dumps([{'path': str(text)}])}")


def test_a_corpus_that_is_too_short_for_one_sample_is_refused(tmp_path):
    text = save_corpus(tmp_path / "short.jsonl", ["one", "two", "three", "four"])
    with pytest.raises(UserError, match=r"fewer than `corpus.sequence_length: 32` training tokens"):
        _made(tmp_path, f"corpus.sources={json.dumps([{'path': str(text)}])}", "corpus.held_out=0.5")


def test_a_separator_that_is_no_token_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`corpus.separator`: the tokenizer has no token '<sep>'"):
        _made(tmp_path, "corpus.separator=<sep>")


def _mini(folder, *overrides):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, *overrides, recipe="babyllama-mini"), run, until="corpus")
    return run


def test_held_out_text_of_its_own_is_drawn_once_and_apart_from_what_chooses_weights(tmp_path, capsys):
    run = _mini(tmp_path)
    train, held_out = _corpus(run)
    validation = load_from_disk(run.path("corpus") / "validation")
    assert (len(held_out), len(validation)) == (8, 4)
    rows = [tuple(ids) for each in (held_out, validation) for ids in each["input_ids"]]
    assert len(set(rows)) == 12
    assert not set(rows) & {tuple(ids) for ids in train["input_ids"]}
    assert {len(ids) for ids in rows} == {SEQUENCE_LENGTH}
    words = AutoTokenizer.from_pretrained(run.path("tokenizer") / "tokenizer")
    assert [words.decode(row["input_ids"]) for row in held_out] == held_out["text"]
    (tmp_path / "again").mkdir()
    assert _corpus(_mini(tmp_path / "again"))[1]["text"] == held_out["text"]
    said = capsys.readouterr().out
    assert "words, cleaned" in said
    assert "cbt.train" in said


def test_without_a_separator_files_stand_end_to_end(tmp_path):
    run = _mini(tmp_path)
    words = AutoTokenizer.from_pretrained(run.path("tokenizer") / "tokenizer")
    stream = [token for ids in _corpus(run)[0]["input_ids"] for token in ids]
    whole = "".join(" " + (tmp_path / "train" / f"{name}.train").read_text() for name in ("cbt", "switchboard"))
    assert whole.startswith(words.decode(stream))
    assert not set(stream) & set(words.all_special_ids)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["corpus.validation=100000"],
            r"fewer than the 8 of `corpus.held_out.sequences` and the 100,000 of `corpus.val",
        ),
        (["corpus.held_out.sequences=100000", "corpus.validation=null", "distil.keep=last"], r"sequences`; lower it"),
    ],
)
def test_too_little_held_out_text_is_refused(tmp_path, overrides, sentence):
    last = ["pretrain.gpt2.keep=last", "pretrain.llama.keep=last"]
    with pytest.raises(UserError, match=sentence):
        _mini(tmp_path, *overrides, *last)


def test_validation_may_not_take_all_held_out_documents(tmp_path):
    with pytest.raises(UserError, match=r"`corpus.validation: 10000` leaves none of \d+ held-out documents"):
        _made(tmp_path, "corpus.validation=10000")
