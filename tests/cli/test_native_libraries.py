"""torch and oneDNN get the settings for a CPU, unless a user has his own."""

import mmap
import os
import sys
from pathlib import Path

import pytest
import torch

from potstill.cli.native_libraries import SETTINGS, set_native_libraries


def test_every_command_sets_them(call, monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    call("recipes")
    assert {name: os.environ.get(name) for name in SETTINGS} == SETTINGS


def test_a_users_setting_is_kept(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    set_native_libraries()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a Linux library's file")
@pytest.mark.parametrize("name", SETTINGS)
def test_the_library_reads_it(name):
    """A later torch may call it otherwise, and would say nothing."""
    # oneDNN puts its own name before it, when it looks it up.
    asked = name.removeprefix("ONEDNN_").encode()
    libraries = [file for file in (Path(torch.__file__).parent / "lib").glob("lib*.so*") if file.stat().st_size]
    assert any(_holds(file, asked) for file in libraries)


def _holds(file: Path, words: bytes) -> bool:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(words) >= 0
