"""torch, oneDNN and the C library get the settings for a CPU, unless a user has his own."""

import mmap
import os
import platform
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


def faults(sets, **environment):
    """The pages that 20 rounds of 16 MiB got from the system, with or without potstill's settings."""
    own = {name: value for name, value in os.environ.items() if name not in (*MALLOC, "GLIBC_TUNABLES", "LD_PRELOAD")}
    command = [sys.executable, "-c", FREES.format(sets=sets)]
    return int(subprocess.check_output(command, text=True, env=own | environment))


def huge_pages_for_all():
    file = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return file.exists() and "[always]" in file.read_text()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or huge_pages_for_all(), reason="counts small pages of glibc's")
def test_freed_memory_is_kept_for_the_next_block():
    pages = 16 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    # Only the first of 20 rounds gets new pages.
    assert faults(sets=True) < 1.5 * pages
    for own in ({"MALLOC_TRIM_THRESHOLD_": "1048576"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1048576"}):
        assert faults(sets=True, **own) > 10 * pages
    assert faults(sets=False) > 10 * pages
