import json

import pytest
import zstandard
from datasets import load_from_disk
from transformers import AutoTokenizer

from potstill.data.collators import Collator
from potstill.data.documents import SourceCounts
from potstill.data.labels import IGNORE_INDEX, labels_of
from potstill.data.splitting import split_documents
from potstill.data.stored_texts import TaughtText
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.stages.corpus import MOST_SOURCE_ROWS, source_table
from tiny import SEQUENCE_LENGTH, documents, save_corpus, tokenizer, toy_recipe


def _corpus(run):
    folder = run.path("corpus")
    return load_from_disk(folder / "train"), load_from_disk(folder / "held_out")


def _run(folder, *overrides):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, *overrides), run, until="corpus")
    return run


def _made(folder, *overrides):
    return _corpus(_run(folder, *overrides))


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
    assert len(train) == 100 // (SEQUENCE_LENGTH - 1)
    assert len(held_out) > 2


@pytest.mark.parametrize("how", [("packed", "all"), ("packed", "document"), ("padded", "all")])
def test_layouts_have_equally_many_supervised_tokens(tmp_path, how, capsys):
    layout, attention = how
    overrides = [f"corpus.layout={layout}", f"corpus.attention={attention}", "corpus.train_tokens=900"]
    run = _run(tmp_path, *overrides)
    train, _ = _corpus(run)
    summary = read_json(run.path("corpus") / "manifest.json")["summary"]
    batch = Collator(0)(list(train))
    assert summary["supervised_tokens"] == int((labels_of(batch)[:, 1:] != IGNORE_INDEX).sum())
    assert summary["train_tokens"] == int(batch["attention_mask"].sum())
    assert 900 - SEQUENCE_LENGTH < summary["supervised_tokens"] <= 900
    said = f"{summary['train_tokens']:,} training tokens in {len(train)} samples, {summary['supervised_tokens']} of"
    assert said in capsys.readouterr().out


def test_samples_know_their_documents_where_these_are_read_apart(tmp_path):
    train, _ = _made(tmp_path, "corpus.attention=document")
    first = tokenizer().eos_token_id
    for row in train:
        starts = [sum(row["documents"][:number]) for number in range(len(row["documents"]))]
        assert sum(row["documents"]) == SEQUENCE_LENGTH
        assert [place for place, token in enumerate(row["input_ids"]) if token == first and place] == starts[1:]


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


def _streamed(folder, *overrides, texts=None):
    """A toy corpus from a stream of The Pile's format."""
    where = folder / "pile"
    where.mkdir(exist_ok=True)
    lines = "".join(json.dumps({"text": text, "meta": {}}) + "\n" for text in texts or documents(400, seed=3))
    (where / "train.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    stream = json.dumps([{"dataset": str(where), "stream": True}])
    return _run(folder, f"corpus.sources={stream}", "corpus.train_tokens=2000", *overrides)


def test_a_stream_becomes_the_same_corpus_each_time(tmp_path):
    (tmp_path / "again").mkdir()
    first, again = (_corpus(_streamed(folder)) for folder in (tmp_path, tmp_path / "again"))
    for one, other in zip(first, again, strict=True):
        assert one.to_dict() == other.to_dict()


def test_a_stream_is_split_as_any_text_is_and_cut_at_its_tokens(tmp_path):
    run = _streamed(tmp_path, "corpus.validation=2")
    train, held_out = _corpus(run)
    summary = read_json(run.path("corpus") / "manifest.json")["summary"]
    assert 2000 - SEQUENCE_LENGTH < summary["supervised_tokens"] <= 2000
    expected = set(split_documents(map(TaughtText, documents(400, seed=3)), 0.2).held_out)
    assert set(held_out["text"]) <= expected
    assert summary["held_out_documents"] == len(held_out) > 2
    assert [row["input_ids"] == _tokens(row["text"]) for row in held_out] == [True] * len(held_out)
    decoded = tokenizer().decode([token for ids in train["input_ids"] for token in ids])
    assert not any(text in decoded for text in expected)
    validation = load_from_disk(run.path("corpus") / "validation")
    assert {len(ids) for ids in validation["input_ids"]} == {SEQUENCE_LENGTH}
    assert len(validation) == 2
    assert not any(tokenizer().decode(ids[1:]) in "".join(held_out["text"]) for ids in validation["input_ids"])
    assert not list(run.path("corpus").glob(".*"))


def test_a_stream_that_runs_out_says_so(tmp_path, capsys):
    run = _streamed(tmp_path, "corpus.train_tokens=1_000_000")
    said = capsys.readouterr().out
    assert "`corpus.sources.0` ran out after 400 documents" in said
    summary = read_json(run.path("corpus") / "manifest.json")["summary"]
    assert f"{summary['supervised_tokens']:,} of the 1,000,000 supervised tokens of `corpus.train_tokens`" in said
    assert summary["ran_out"] == {"corpus.sources.0": 400}


def test_a_stream_held_out_from_a_stream_of_its_own(tmp_path):
    where = tmp_path / "apart"
    where.mkdir()
    save_corpus(where / "train.jsonl", documents(50, seed=7))
    apart = json.dumps({"sources": [{"dataset": str(where), "stream": True}], "sequences": 5})
    run = _streamed(tmp_path, f"corpus.held_out={apart}", "corpus.validation=3")
    train, held_out = _corpus(run)
    validation = load_from_disk(run.path("corpus") / "validation")
    assert (len(held_out), len(validation)) == (5, 3)
    rows = {tuple(ids) for each in (held_out, validation) for ids in each["input_ids"]}
    assert len(rows) == 8
    assert not rows & {tuple(ids) for ids in train["input_ids"]}


def test_a_stream_without_a_held_out_document_is_refused(tmp_path):
    with pytest.raises(UserError, match="none of them is a held-out one"):
        _streamed(tmp_path, "corpus.held_out=0.2", texts=split_documents(map(TaughtText, documents()), 0.2).train)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_short_documents_are_neither_trained_on_nor_held_out(tmp_path, layout):
    lengths = sorted(len(_tokens(text)) - 1 for text in documents())
    shortest = lengths[len(lengths) // 3]
    train, held_out = _made(tmp_path, f"corpus.layout={layout}", f"corpus.shortest={shortest}", "corpus.separator=null")
    assert all(len(ids) - 1 >= shortest for ids in held_out["input_ids"])
    assert len(held_out) > 0
    if layout == "padded":
        assert len(train) + len(held_out) == sum(length >= shortest for length in lengths)


def _tallies(names):
    tallies = {name: SourceCounts() for name in names}
    for tally in tallies.values():
        tally.add("one two", "one")
    return tallies


def test_the_table_has_one_row_for_a_folder_of_many_files():
    many = MOST_SOURCE_ROWS + 1
    _, row = source_table(_tallies(f"{n}.txt" for n in range(many))).splitlines()
    assert row.split("  ")[0] == f"*.txt ({many} sources)"
    assert row.split()[3:] == [str(many * figure) for figure in (1, 2, 7, 1, 3)]
    rows = source_table(_tallies(["a.jsonl", *(f"{n}.txt" for n in range(many))])).splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == ["a.jsonl", f"*.txt ({many} sources)", "in all"]
    assert rows[-1].split()[2:] == [str((many + 1) * figure) for figure in (1, 2, 7, 1, 3)]


def test_the_table_has_a_row_for_each_of_a_few_files():
    names = [f"{n}.txt" for n in range(MOST_SOURCE_ROWS)]
    rows = source_table(_tallies(names)).splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == [*names, "in all"]
