"""torch, oneDNN and the C library get the settings for a CPU, unless a user has his own."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from potstill.cli.native_libraries import MALLOC, SETTINGS, set_native_libraries


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


FREES = """
import ctypes, resource
from potstill.cli.native_libraries import set_native_libraries
if {sets}:
    set_native_libraries()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(size, count):
    blocks = [c.malloc(size) for _ in range(count)]
    for block in blocks:
        c.memset(block, 1, size)
    for block in blocks:
        c.free(block)

use(2 * 2**20, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use(2**20, 16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_for_the_next_block(monkeypatch):
    for name in MALLOC:
        monkeypatch.delenv(name, raising=False)
    found = [
        int(subprocess.check_output([sys.executable, "-c", FREES.format(sets=sets)], text=True)) for sets in (0, 1)
    ]
    pages = 16 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    # Only the first of 20 rounds gets new pages.
    assert found[1] < 1.5 * pages < 10 * pages < found[0]
