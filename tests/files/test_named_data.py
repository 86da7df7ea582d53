"""Data by name: found in a folder of one's own, in the hub's cache or on the hub, and never another file."""

import hashlib
import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from potstill.errors import UserError
from potstill.files import named_data as module
from potstill.files.named_data import all_named_data, named_data, named_files
from potstill.recipe.corpus import NamedFiles
from potstill.rehearsal.hub import hub

KEY = "corpus.sources.0.data"
ROWS = {"train.jsonl": '{"text": "One."}\n', "test.jsonl": '{"text": "Two."}\n'}
HOME = {"repository": "people/words", "kind": "dataset", "revision": "0" * 40}
ENTRY = {
    "about": "Words",
    "licence": "MIT",
    "home": "the data set people/words on the hub",
    "folder": "words_folder",
    "hub": HOME,
    "splits": {
        "train": {"local": ["train.jsonl"], "hub": ["main/train.jsonl"]},
        "test": {"local": ["test.jsonl"], "hub": ["main/te*.jsonl"]},
    },
    "sha256": {
        f"{folder}{name}": hashlib.sha256(text.encode()).hexdigest()
        for folder in ("", "main/")
        for name, text in ROWS.items()
    },
}
OFFLINE = {key: value for key, value in ENTRY.items() if key != "hub"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A table with `words`, which the hub has, and `papers`, which it has not; gives the folder of own data."""
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({"words": ENTRY, "papers": OFFLINE | {"folder": "papers"}}))
    monkeypatch.setattr(module, "TABLE", file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path / "own"))
    all_named_data.cache_clear()
    yield tmp_path / "own"
    all_named_data.cache_clear()


def save(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ROWS:
        (folder / name).write_text(ROWS[name])
    return folder


def test_the_folder_of_ones_own_comes_first_and_then_the_cache(own):
    # Without checksums, so that neither file is refused.
    module.TABLE.write_text(yaml.safe_dump({"words": ENTRY | {"sha256": {}}}))
    all_named_data.cache_clear()
    mine = save(own / "words_folder") / "test.jsonl"
    cached = save(own.parent / "cache" / "datasets--people--words" / "snapshots" / HOME["revision"] / "main")
    (cached / "test.jsonl").write_text("Another text.")
    assert named_files("words", "test", KEY) == [mine]
    mine.unlink()
    assert named_files("words", "test", KEY) == [cached / "test.jsonl"]


def test_a_folder_may_have_the_layout_of_the_hub(own):
    save(own / "words_folder" / "main")
    assert named_files("words", "test", KEY) == [own / "words_folder" / "main" / "test.jsonl"]


@pytest.mark.parametrize("name", ["words", "papers"])
def test_what_is_not_here_is_asked_for_by_its_name_and_place(own, name):
    with pytest.raises(UserError) as error:
        named_files(name, "train", KEY)
    told = str(error.value)
    assert told.startswith(f"`{KEY}`: {name} is not on this machine")
    assert f"put train.jsonl into {own / named_data(name).folder}; its home is the data set people/words" in told
    assert "\n" not in told


def test_another_file_of_that_name_is_refused(own):
    save(own / "words_folder")
    (own / "words_folder" / "train.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"train\.jsonl is not the file that the name words stands for.*replace it"):
        named_files("words", "train", KEY)


def test_a_file_that_is_mended_is_read_again(own):
    file = save(own / "words_folder") / "train.jsonl"
    file.write_text("{}")
    with pytest.raises(UserError, match="replace it"):
        named_files("words", "train", KEY)
    save(own / "words_folder")
    assert named_files("words", "train", KEY) == [file]


def test_a_part_of_the_files_is_enough_where_only_these_are_wanted(own, tmp_path):
    entry = OFFLINE | {"splits": {"train": {"local": ["train.jsonl", "test.jsonl"]}}}
    module.TABLE.write_text(yaml.safe_dump({"papers": entry}))
    all_named_data.cache_clear()
    folder = save(own / "words_folder", "test.jsonl")
    assert named_files("papers", "train", KEY, ["te*"]) == [folder / "test.jsonl"]
    with pytest.raises(UserError, match=r"put train\.jsonl, test\.jsonl into"):
        named_files("papers", "train", KEY)
    assert named_data("papers").own_files("train") == [(folder / "test.jsonl", "test.jsonl")]
    assert named_data("papers").file_count("train") == 2


def test_a_part_of_a_pattern_does_not_pass_for_the_whole(own):
    whole = ENTRY | {"splits": {"train": {"local": ["*.jsonl"], "hub": ["main/*.jsonl"], "count": 2}}}
    module.TABLE.write_text(yaml.safe_dump({"words": whole}))
    all_named_data.cache_clear()
    folder = save(own / "words_folder", "train.jsonl")
    with pytest.raises(UserError, match=r"put all 2 files \*\.jsonl into"):
        named_files("words", "train", KEY)
    save(own / "words_folder")
    assert named_files("words", "train", KEY) == [folder / "test.jsonl", folder / "train.jsonl"]


def test_a_download_that_was_cut_off_is_completed(own, tmp_path):
    whole = ENTRY | {"splits": {"train": {"hub": ["main/*.jsonl"], "count": 2}}}
    module.TABLE.write_text(yaml.safe_dump({"words": whole}))
    save(tmp_path / "repository" / "main")
    with hub({"datasets/people/words": tmp_path / "repository"}) as address:
        files = [Path(file) for file in json.loads(ask(own, "train", HF_ENDPOINT=address).stdout)]
        assert [file.name for file in files] == ["test.jsonl", "train.jsonl"]
        files[0].unlink()
        again = ask(own, "train", HF_ENDPOINT=address)
    assert json.loads(again.stdout) == [str(file) for file in files]
    files[0].unlink()
    assert "words is not on this machine" in ask(own, "train", HF_ENDPOINT=address).stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data": "babylm-10m", "files": ["cbd.*"]}, r"there is no such file; the files are aochildes\.train, "),
        ({"data": "blimp", "files": ["wh_island.jsonl"]}, "only whole splits of this data can be named; remove it"),
        ({"data": "gsm8k", "files": ["train.jsonl"]}, "only whole splits of this data can be named; remove it"),
        ({"data": "gsm8k", "split": "dev"}, "gsm8k has no split 'dev'; its splits are train, test"),
        ({"data": "gsm8"}, "no data has the name 'gsm8'; did you mean 'gsm8k'"),
    ],
)
def test_what_a_recipe_cannot_name_is_refused_when_it_is_read(given, told):
    with pytest.raises(ValidationError, match=told):
        NamedFiles.model_validate(given)


def test_an_unknown_name_has_a_suggestion():
    with pytest.raises(UserError, match="no data has the name 'gsm8'; did you mean 'gsm8k'"):
        named_data("gsm8")


SCRIPT = """
import json, sys, time
from pathlib import Path
from potstill.files import named_data
named_data.TABLE = Path(sys.argv[1])
# huggingface_hub asks a hub that is gone six times, and waits for 23 seconds between.
time.sleep = lambda seconds: None
print(json.dumps([str(file) for file in named_data.named_files("words", sys.argv[2], "key")]))
"""


def ask(own: Path, split: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The files as another process finds them: huggingface_hub reads its variables when it is imported."""
    cache = {"HF_HOME": str(own.parent / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    script = [sys.executable, "-c", SCRIPT, str(module.TABLE), split]
    environment = os.environ | {"HF_HUB_OFFLINE": "0"} | cache | variables
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)


def test_it_is_fetched_once_from_the_hub(own, tmp_path):
    save(tmp_path / "repository" / "main")
    with hub({"datasets/people/words": tmp_path / "repository"}) as address:
        first = ask(own, "test", HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    (file,) = json.loads(first.stdout)
    assert Path(file).read_text() == ROWS["test.jsonl"]
    assert str(own.parent / "home") in file
    # The hub is gone now.
    again = ask(own, "test", HF_ENDPOINT=address)
    assert json.loads(again.stdout) == [file]


def test_a_hub_that_has_another_file_is_refused(own, tmp_path):
    save(tmp_path / "repository" / "main")
    (tmp_path / "repository" / "main" / "train.jsonl").write_text("{}")
    with hub({"datasets/people/words": tmp_path / "repository"}) as address:
        told = ask(own, "train", HF_ENDPOINT=address).stderr
    assert "is not the file that the name words stands for" in told


def test_a_hub_that_has_lost_it_is_one_sentence(own, tmp_path):
    with hub({}) as address:
        told = ask(own, "train", HF_ENDPOINT=address).stderr
    assert "words is not on this machine, and the hub does not give it" in told.splitlines()[-1]


WITHOUT_CHECKSUM = {
    "babylm-10m": {
        f"{split}/{name}.{split}"
        for split in ("train", "dev")
        for name in ("bnc_spoken", "gutenberg", "open_subtitles", "qed", "simple_wikipedia", "wikipedia")
    },
    "blimp": {"*/train-00000-of-00001.parquet"},
    "wikitext-2": {f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")},
}
"""Files that nobody here has had: six of BabyLM's ten, and the hub's parquet files of two data sets. Their checksums
must come from the files or from their home; add them, and take the names out of here."""


def test_the_shipped_table_is_whole():
    for name, data in all_named_data().items():
        assert all((data.about, data.licence, data.home, data.splits)), name
        assert data.hub is None or len(data.hub.revision) == 40, name
        assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in data.sha256.values()), name
        named = {one for split in data.splits.values() for one in (*split.local, *split.hub)}
        known = {one: [file for file in data.sha256 if fnmatchcase(file, one)] for one in named}
        assert set(data.sha256) == {file for files in known.values() for file in files}, name
        assert {one for one, files in known.items() if not files} == WITHOUT_CHECKSUM.get(name, set()), name
        for split in data.splits.values():
            assert all(len(known[one]) in (0, split.count) for one in named if "*" in one), name


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name, data in all_named_data().items() for split in data.splits]
)
def test_what_is_beside_this_checkout_is_what_the_table_means(name, split):
    data = named_data(name)
    here = data.own_files(split)
    if not here:
        pytest.skip(f"{name} is not here")
    assert not [file for file, name in here if data.is_another_file(file, name)]
