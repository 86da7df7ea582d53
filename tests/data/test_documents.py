"""Documents of a recipe's corpus are cleaned, counted per source and split; errors name the source."""

import json
import tracemalloc

import pytest

from potstill.data.babylm_cleaning import Counts
from potstill.data.documents import SourceCounts, split_text
from potstill.errors import UserError
from potstill.recipe.corpus import Corpus


@pytest.fixture
def babylm(tmp_path):
    """A folder of two sources for each split, and the recipe's section that names both."""

    def save(split, **texts):
        (tmp_path / split).mkdir(exist_ok=True)
        for name, text in texts.items():
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / split / f"{name}.{split}").write_bytes(content)

    save("train", cbt="He said , ` yes '\n", switchboard="uh, no\n")
    save("dev", cbt="She asked .\n", switchboard="yeah\n")
    return save


def corpus(folder, **fields):
    held_out = {"sources": [{"path": str(folder / "dev")}], "sequences": 1}
    given = {"sources": [{"path": str(folder / "train")}], "held_out": held_out, "sequence_length": 8, "cleaning": {}}
    return Corpus.model_validate(given | fields)


def refusal(section):
    with pytest.raises(UserError) as told:
        split_text(section, {})
    assert "\n" not in str(told.value)
    return str(told.value)


def test_text_is_cleaned_by_its_source_and_counted_before_and_after(tmp_path, babylm):
    tallies = {}
    split = split_text(corpus(tmp_path), tallies)
    assert list(split.train) == ["He said, ` yes '\n", "uh, no\n"]
    assert list(split.held_out) == ["She asked.\n", "yeah\n"]
    assert tallies["cbt.train"] == SourceCounts(1, Counts(words=6, bytes=18), Counts(words=5, bytes=17))
    assert list(tallies) == ["cbt.dev", "switchboard.dev", "cbt.train", "switchboard.train"]


def test_without_cleaning_text_is_taken_as_it_is(tmp_path, babylm):
    assert split_text(corpus(tmp_path, cleaning=None), {}).train[0] == "He said , ` yes '\n"


def test_a_document_that_is_held_out_is_not_trained_on(tmp_path, babylm):
    babylm("train", switchboard="yeah\n")
    split = split_text(corpus(tmp_path), {})
    assert list(split.train) == ["He said, ` yes '\n"]
    assert split.repeated == 1


def test_a_share_is_held_out_by_hash(tmp_path, babylm):
    split = split_text(corpus(tmp_path, held_out=0.5), {})
    assert sorted([*split.train, *split.held_out]) == ["He said, ` yes '\n", "uh, no\n"]


def test_a_missing_source_is_named(tmp_path, babylm):
    told = refusal(corpus(tmp_path, sources=[{"path": str(tmp_path / "nowhere")}]))
    assert "`corpus.sources.0.path`: no text at" in told


def test_an_empty_source_is_named(tmp_path, babylm):
    babylm("train", cbt="")
    told = refusal(corpus(tmp_path))
    assert "`corpus.sources.0`" in told
    assert "cbt.train is empty" in told


def test_a_source_without_a_rule_is_named(tmp_path, babylm):
    babylm("train", tweets="lol\n")
    told = refusal(corpus(tmp_path))
    assert "tweets.train" in told
    assert "no cleaning rules for 'tweets'" in told


def test_text_that_is_not_utf_8_is_named(tmp_path, babylm):
    babylm("train", cbt=b"na\xefve\n")
    assert "cbt.train is not UTF-8 (byte 2)" in refusal(corpus(tmp_path))


def test_memory_is_flat_in_the_size_of_files(tmp_path):
    def peak(documents):
        file = tmp_path / f"{documents}.jsonl"
        lines = (json.dumps({"text": f"{number} " + "word " * 400}) for number in range(documents))
        file.write_text("\n".join(lines))
        section = Corpus.model_validate({"sources": [{"path": str(file)}], "sequence_length": 8, "held_out": 0.1})
        tracemalloc.start()
        split = split_text(section, {}, tmp_path)
        read = sum(len(text) for side in (split.train, split.held_out) for text in side)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read > 2000 * documents
        return found

    peak(10)
    # A hash and a place for each document stay in memory, and not its 2,000 bytes of text.
    assert peak(2000) - peak(500) < 1500 * 250
