"""`potstill data`: what public data there is, and where it is on this machine."""

import pytest

from potstill.cli.data import described, fetched
from potstill.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path))
    return tmp_path


def line(text, *words):
    return next(one for one in text.splitlines() if one.split()[: len(words)] == list(words))


def save(folder, *names):
    """Write files that are not the published ones."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_it_says_where_each_split_is(own):
    # No checksum of these is known.
    save(own / "wikitext-2" / "wikitext-2-raw-v1", "test-00000-of-00001.parquet")
    save(own / "babylm_10m", "train/qed.train")
    told = described([])
    assert f" {own / 'wikitext-2'} " in line(told, "wikitext-2", "test")
    assert f" {own / 'babylm_10m'}, 1 of 10 files " in line(told, "babylm-10m", "train")
    assert "no; `--fetch` gets it" in line(told, "gsm8k", "test")
    assert "gsm8k: GSM8K, 7,473 and 1,319 school problems" in told
    assert "another file" not in told


def test_it_says_which_files_are_not_the_published_ones(own):
    save(own / "lambada", "test.jsonl")
    save(own / "blimp", "adjunct_island.jsonl", "causative.jsonl", "wh_island.jsonl")
    told, other = described([]), "is another file than the published one"
    assert f" {own / 'lambada'}, test.jsonl {other} " in line(told, "lambada", "test")
    others = "adjunct_island.jsonl and 2 more are other files than the published ones"
    assert f" {own / 'blimp'}, 3 of 67 files, {others} " in line(told, "blimp", "train")


def test_it_does_not_take_another_file_for_fetched(own):
    save(own / "lambada", "test.jsonl")
    with pytest.raises(UserError, match=r"`lambada`: .*test\.jsonl is not the file that the name lambada stands for"):
        fetched(["lambada"])


def test_it_fetches_all_it_can_and_names_the_rest(own):
    with pytest.raises(UserError) as error:
        fetched(["babylm-10m", "gsm8k"])
    first, second = str(error.value).splitlines()
    assert first.startswith("`babylm-10m`: babylm-10m is not on this machine and cannot be fetched; put train/")
    assert second.startswith("`gsm8k`: gsm8k is not on this machine, and the hub does not give it (")


def test_an_unknown_name_is_refused(own):
    with pytest.raises(UserError, match="no data has the name 'glue'; the names are babylm-10m, blimp"):
        described(["glue"])
