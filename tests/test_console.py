"""Progress of long work: a bar on a terminal, a line now and then anywhere else."""

import io
import sys

import pytest

from potstill import console
from potstill.console import duration, progress, say, size


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_line_is_out_at_once(monkeypatch):
    class Watched(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    say("hello")
    assert out.flushed == "hello\n"


def test_what_the_output_cannot_encode_stops_nothing(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("café 日")
    assert written.getvalue().decode().rstrip() == r"caf\xe9 \u65e5"


def test_off_a_terminal_a_line_every_quarter_minute(clock, capsys):
    with progress("training", total=100, unit="steps") as advance:
        for _ in range(100):
            clock[0] += 1
            advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "  training: 15 of 100 steps, 1.0 steps/s, 1 min 25 s left"
    assert lines[-1] == "  training: 90 of 100 steps, 1.0 steps/s, 10 s left"


def test_what_is_quick_says_nothing(clock, capsys):
    with progress("tokenizing", total=5, unit="documents") as advance:
        clock[0] += 60
        advance(5)
    assert capsys.readouterr().out == ""


def test_work_of_an_earlier_attempt_counts_as_done_and_not_as_fast(clock, capsys):
    with progress("capturing", total=1000, unit="samples", done=900) as advance:
        clock[0] += 20
        advance(20)
    assert capsys.readouterr().out == "  capturing: 920 of 1,000 samples, 1.0 samples/s, 1 min 20 s left\n"


def test_no_progress_at_all_is_no_division_by_zero(clock, capsys):
    with progress("waiting", total=10, unit="steps") as advance:
        clock[0] += 20
        advance(0)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress("training", total=4, unit="steps", done=1) as advance:
        advance(1)
        advance(2)
    assert "training" in out.getvalue()
    assert "4/4" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (1_300_000, "1.3 MB"),
        (2.5e9, "2.5 GB"),
        (4e12, "4.0 TB"),
        (4e15, "4000.0 TB"),
    ],
)
def test_sizes_as_people_say_them(count, text):
    assert size(count) == text
