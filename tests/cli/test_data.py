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


def test_it_says_where_each_split_is(own):
    (own / "lambada").mkdir()
    (own / "lambada" / "test.jsonl").write_text("{}")
    (own / "blimp").mkdir()
    (own / "blimp" / "adjunct_island.jsonl").write_text("{}")
    (own / "babylm_10m" / "train").mkdir(parents=True)
    (own / "babylm_10m" / "train" / "cbt.train").write_text("A story.")
    told = described([])
    assert str(own / "lambada") in line(told, "lambada", "test")
    assert f"{own / 'blimp'}, 1 of 67 files" in line(told, "blimp", "train")
    assert f"{own / 'babylm_10m'}, 1 of 10 files" in line(told, "babylm-10m", "train")
    assert "no; `--fetch` gets it" in line(told, "gsm8k", "test")
    assert "gsm8k: GSM8K, 7,473 and 1,319 school problems" in told


def test_it_fetches_all_it_can_and_names_the_rest(own):
    with pytest.raises(UserError) as error:
        fetched(["babylm-10m", "gsm8k"])
    first, second = str(error.value).splitlines()
    assert first.startswith("`babylm-10m`: babylm-10m is not on this machine and cannot be fetched; put train/")
    assert second.startswith("`gsm8k`: gsm8k is not on this machine, and the hub does not give it (")


def test_an_unknown_name_is_refused(own):
    with pytest.raises(UserError, match="no data has the name 'glue'; the names are babylm-10m, blimp"):
        described(["glue"])
