"""A text that is measured before a run has the samples that the corpus stage makes of it."""

import random

import pytest

import minimal
from potstill.data.documents import split_text
from potstill.data.packing import LAYOUTS, TokenizedDocument, first_tokens
from potstill.data.tokenization import Encoder
from potstill.errors import UserError
from potstill.planning.sampling import measured_text as module
from potstill.planning.sampling.measured_text import measured_text
from tiny import documents, save_corpus, tokenizer

WIDTH = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    several = [
        f"{number}: " + " ".join(rng.choices(documents(), k=rng.choice([1, 1, 1, 2, 6]))) for number in range(900)
    ]
    save_corpus(folder / "text.jsonl", [*several, *several[:40], "a"])
    return folder


def recipe_of(folder, *overrides):
    source = f"corpus.sources=[{{path: {folder / 'text.jsonl'}}}]"
    return minimal.recipe(folder, source, f"corpus.sequence_length={WIDTH}", "corpus.held_out=0.1", *overrides)


def made(corpus, encode):
    """What the corpus stage makes: samples, tokens, learned tokens, held-out documents and their tokens."""
    split, apart = split_text(corpus, {}), corpus.attention == "document"
    shortest = corpus.shortest + 1 if corpus.shortest else 0
    tokens = (TokenizedDocument([0, *ids]) for ids in encode(list(split.train)))
    laid = LAYOUTS[corpus.layout]((one for one in tokens if len(one.ids) >= shortest), corpus.sequence_length)
    samples = list(first_tokens(laid, corpus.train_tokens, apart))
    held_out = sum(1 + len(ids) for ids in encode(list(split.held_out)))
    sizes = (len(one.input_ids) for one in samples)
    return len(samples), sum(sizes), sum(one.supervised(apart) for one in samples), len(split.held_out), held_out


CASES = [
    (),
    ("corpus.train_tokens=9000",),
    ("corpus.attention=document",),
    ("corpus.shortest=100",),
    ("corpus.layout=padded",),
    ("corpus.layout=padded", "corpus.shortest=100"),
    ("corpus.layout=padded", "corpus.train_tokens=9000"),
]


@pytest.mark.parametrize("overrides", CASES)
def test_a_small_text_is_counted(folder, overrides):
    recipe, encode = recipe_of(folder, *overrides), Encoder(tokenizer(), ()).encode
    found = measured_text(recipe, recipe.corpus, encode, 1)
    samples, tokens, learned, held_out, held_out_tokens = made(recipe.corpus, encode)
    assert found.samples.expected == pytest.approx(samples, abs=1, rel=0.01)
    assert found.tokens.expected == pytest.approx(tokens, abs=WIDTH, rel=0.01)
    assert found.supervised.expected == pytest.approx(learned, rel=0.02)
    assert found.held_out_samples.expected == held_out
    assert held_out_tokens in found.held_out_tokens
    assert found.lost["documents that repeat others"].expected == 40
    assert "100% of which was tokenized" in found.origin


@pytest.mark.parametrize("overrides", CASES)
def test_the_truth_lies_in_the_interval_of_a_part(folder, overrides, monkeypatch):
    monkeypatch.setattr(module, "CHARACTERS", 20_000)
    monkeypatch.setattr(module, "DOCUMENTS", 150)
    recipe, encode = recipe_of(folder, *overrides), Encoder(tokenizer(), ()).encode
    found = measured_text(recipe, recipe.corpus, encode, 1)
    samples, tokens, _, _, held_out_tokens = made(recipe.corpus, encode)
    assert found.samples.low - 1 <= samples <= found.samples.high + 1
    assert found.tokens.low - WIDTH <= tokens <= found.tokens.high + WIDTH
    assert held_out_tokens in found.held_out_tokens
    assert found.length.high <= WIDTH
    if not overrides:
        assert not found.tokens.is_exact


@pytest.mark.parametrize("ending", ["jsonl", "txt"])
def test_the_beginnings_of_large_files_tell_the_rest(folder, tmp_path, monkeypatch, ending):
    text = (folder / "text.jsonl").read_text()
    (tmp_path / f"text.{ending}").write_text(text)
    recipe = recipe_of(folder, f"corpus.sources=[{{path: {tmp_path / f'text.{ending}'}}}]")
    # A text of one document can hold nothing out.
    encode = Encoder(tokenizer(), ()).encode
    exact = measured_text(recipe, recipe.corpus, encode, 1) if ending == "jsonl" else None
    tokens = exact.tokens.expected if exact else len(encode([text])[0])
    monkeypatch.setattr(module, "MOST_BYTES", len(text) // 4)
    found = measured_text(recipe, recipe.corpus, encode, 1)
    assert tokens in found.tokens
    assert "beginnings" in found.origin


def test_without_a_tokenizer_the_length_of_a_token_is_assumed(folder):
    recipe = recipe_of(folder, "tokenizer={vocab_size: 300}")
    found = measured_text(recipe, recipe.corpus, None, 1)
    assert not found.tokens.is_exact
    assert "assumed" in found.origin
    assert found.lost["documents that repeat others"].expected == 40


def test_a_text_that_is_shorter_than_the_limit_is_a_note(folder):
    recipe = recipe_of(folder, "corpus.train_tokens=10_000_000")
    found = measured_text(recipe, recipe.corpus, Encoder(tokenizer(), ()).encode, 1)
    assert found.tokens.expected < 1_000_000
    assert "`corpus.train_tokens`" in found.notes[0]


def test_what_is_cut_and_too_short_is_told(folder):
    recipe = recipe_of(folder, "corpus.layout=padded", "corpus.shortest=100")
    found = measured_text(recipe, recipe.corpus, Encoder(tokenizer(), ()).encode, 1)
    assert found.lost["documents shorter than `corpus.shortest`"].expected > 0
    assert found.lost["documents that `corpus.sequence_length` cuts"].expected > 0


def test_a_separate_held_out_text_is_as_long_as_the_recipe_says(folder):
    sources = f"{{sources: [{{path: {folder / 'text.jsonl'}}}], sequences: 12}}"
    recipe = recipe_of(folder, f"corpus.held_out={sources}")
    found = measured_text(recipe, recipe.corpus, Encoder(tokenizer(), ()).encode, 1)
    assert found.held_out_tokens.expected == 12 * WIDTH


def test_a_text_without_documents_is_a_sentence(tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": ""}\n')
    recipe = recipe_of(tmp_path)
    with pytest.raises(UserError, match=r"`corpus.sources` give no document"):
        measured_text(recipe, recipe.corpus, None, 1)
