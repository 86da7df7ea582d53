r"""Numbers in prose and LaTeX, read exactly: their text, their place and their value.

These are read: ``5``, ``5.``, ``-5``, ``−5`` (any minus), ``negative 5``, ``1,000``, ``1{,}000``, ``1\,000`` and thin
spaces, ``$1,000.00``, ``-$5``, ``.5``, ``50%``, ``1/2``, ``2 1/2``, ``½``, ``2½``, ``\frac{1}{2}``, ``1.5e3``,
``1.5 × 10^3``; with any unit, or as an ordinal (``3rd``). A percent sign is a unit: ``50%`` is 50, as in GSM8K. A
minus is a sign only if nothing before it could be the first operand: ``5 - 3``, ``5-3`` and ``x-5`` have no sign.

A number that cannot be read without a guess has the value None: a time or ratio (``3:30``), a date, a
version or a European decimal (``1.2.3``, ``3,5``), a list without spaces (``1,2,3``), a power (``3^2``; the ``2`` of
``m^2`` is no number), ``1.5 million`` and ``50k`` (the question may ask for millions or for the whole number), a
division by zero, and a number that is too long or too large to be intended. Only ASCII digits count.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 1000
"""The maximum length of an intended number, in characters; a model that repeats a digit writes longer ones."""
LARGEST_EXPONENT = 99

SIGNS = "-+−–﹣－"
"""Hyphen, plus, minus sign, en dash, small hyphen, full-width hyphen."""
VULGAR = "".join(sign for sign in map(chr, range(0xBC, 0x218A)) if unicodedata.decomposition(sign)[:10] == "<fraction>")
GROUP = r"(?:\{,\}|,\\!|,|\\[,! ]|[\u00a0\u2009\u202f])"
WHOLE = rf"(?:[0-9]{{1,3}}(?:{GROUP}[0-9]{{3}})+|[0-9]+)"
DECIMAL = rf"(?:{WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
# Digits and the signs that join them without a space: together they are one number, or none.
RUN = rf"(?:(?<![\w.)\]}}])\.)?[0-9]+(?:(?:{GROUP}|[.:/⁄∕])[0-9]+)*"
# Two asterisks before a space are bold print, and a caret before a circle means degrees: they are no powers.
POWER = r"(?:[ ]*\^(?![ ]*\{?\\circ)|\*\*[0-9]|[⁰¹²³⁴⁵⁶⁷⁸⁹])"
FRAC = r"\\[dt]?frac\s*(?:\{\s*([0-9]{1,30})\s*\}\s*\{\s*([0-9]{1,30})\s*\}|([0-9])\s*([0-9]))"
FIGURE = re.compile(
    rf"""
    (?P<sign>(?:[{SIGNS}]|(?i:\bnegative[ ]+))?)
    (?:(?:\\?[$]|[£€¥₹])[ ]?(?P<inner>[{SIGNS}]?))?
    (?P<body>
        (?:(?P<whole>[0-9]{{1,30}})[ ]?)?(?:(?P<vulgar>[{VULGAR}])|(?P<frac>{FRAC}))
      | (?P<ones>[0-9]{{1,30}})[ ](?P<part>[0-9]{{1,30}}[/⁄∕][0-9]{{1,30}})(?![/.,:]?[0-9])
      | (?P<run>{RUN})
    )
    (?P<exponent>[eE][-+]?[0-9]+(?!\w)|[ ]*(?:[×x*·]|\\times|\\cdot)[ ]*10[ ]*(?:\^|\*\*)[ ]*\{{?[{SIGNS}]?[0-9]+\}}?)?
    (?P<guess>{POWER}|[ ]*(?:\\text\{{)?[ ]*(?i:(?:hundred|thousand|million|billion|trillion)s?\b)|[kK]\b)?
    """,
    re.VERBOSE,
)
EXPONENT = re.compile(r"(?:\^|[0-9)]\*\*)[ ]*\{?[ ]*$")
"""Matches the text before an exponent."""


@dataclass(frozen=True)
class Number:
    """A number in a text: its characters with the sign, its start, and its value; None if it cannot be read."""

    text: str
    start: int
    value: Fraction | None


def numbers(text: str) -> Iterator[Number]:
    """Every number of ``text``, from left to right. No text makes this raise."""
    at = 0
    while found := FIGURE.search(text, at):
        value, end = _value(found), found.end()
        if found["ones"] and not (value and value % 1):
            # The second number is no proper fraction: these are two numbers, not a mixed number.
            value, end = _plain(found["ones"]), found.end("ones")
        at = end
        if EXPONENT.search(text[max(0, found.start() - 8) : found.start()]):
            continue
        sign = _sign(text, found)
        start = found.start() if sign else found.start("body") if found["inner"] else found.end("sign")
        yield Number(text[start:end].rstrip(), start, -value if value is not None and sign not in ("", "+") else value)


def same(found: list[Number]) -> bool:
    """Whether there is a number and all are equal. A number that cannot be read equals only its own spelling."""
    return len({each.text if each.value is None else each.value for each in found}) == 1


def _sign(text: str, found: re.Match[str]) -> str:
    """The sign before a number, or between its currency and it; "" if it is an operator, a hyphen or a dash."""
    before = text[max(0, found.start() - 40) : found.start()]
    if before[-1:].isalnum() or before.endswith((*SIGNS, *"_)]}%")):
        return ""
    subtracted_from = before.rstrip(" \t")
    return "" if subtracted_from.endswith((*"0123456789)]}%",)) else found["sign"] or found["inner"] or ""


def _value(found: re.Match[str]) -> Fraction | None:
    """The value without its sign, or None if it would be a guess."""
    if found["guess"] or len(found["body"]) > LONGEST:
        return None
    if found["run"]:
        value = _plain(found["run"])
    else:
        value = _plain(_part(found))
        whole = found["whole"] or found["ones"]
        if value is not None and whole:
            value = int(whole) + value if value < 1 else None
    return value if value is None or not found["exponent"] else _scaled(value, found["exponent"])


def _part(found: re.Match[str]) -> str:
    """The fractional part, as ``1/2``."""
    if found["frac"]:
        digits = re.findall("[0-9]+", found["frac"])
        return "/".join(digits if len(digits) == 2 else digits[0])
    return unicodedata.normalize("NFKC", found["vulgar"]) if found["vulgar"] else found["part"]


def _plain(run: str) -> Fraction | None:
    over = re.split("[/⁄∕]", run)
    if len(over) == 2:
        top, bottom = (_decimal(each) if re.fullmatch(WHOLE, each) else None for each in over)
        return top / bottom if top is not None and bottom else None
    return _decimal(run) if len(over) == 1 else None


def _decimal(run: str) -> Fraction | None:
    return Fraction(re.sub(GROUP, "", run)) if re.fullmatch(DECIMAL, run) else None


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    written = re.search(rf"([{SIGNS}]?)([0-9]+)\}}?$", exponent)
    assert written, exponent
    if len(written[2]) > 3 or int(written[2]) > LARGEST_EXPONENT:
        return None
    return value * Fraction(10) ** (int(written[2]) * (1 if written[1] in ("", "+") else -1))
