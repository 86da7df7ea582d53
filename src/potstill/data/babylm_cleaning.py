"""Cleaning: what is done to each of BabyLM's ten sources before a tokenizer sees it.

Baby Llama (Timiryasov and Tastet, arXiv 2308.02019) cleaned each source in its own way. `RULES` says how, twice over:
`published` gives the files of the published run byte for byte, faults included; `sound` does what was meant. The
faults: a blank line, which separates articles or conversations, was deleted with both line ends, so that the text
before it ran into the text after it; a line such as "..." stopped the program; and the HTML tags and non-verbal cues
that the authors say were removed stayed in. What is cleaned soundly stays as it is when cleaned again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from potstill.errors import UserError

RuleSet = Literal["published", "sound"]
Edit = Callable[[str], str]

SENTENCE_END = re.compile(r"([.!?]\s*)")
CAPITALS = re.compile(r"[A-Z]{2}|l[A-Z]")
MISREAD_I = re.compile(r"(?<=[A-Z])l|l(?=[A-Z])|\bl\b")
HEADING = re.compile(r"^(?:= ){3,}(.+?)(?: =){3,}$")

_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>/&]+)"""
_TAG_NAMES = (
    "abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|gallery|h[1-6]|hr|i|img|includeonly|ins|kbd|li|math|"
    "noinclude|nowiki|ol|onlyinclude|p|poem|pre|q|ref|references|s|samp|section|small|source|span|strike|strong|sub|sup|"
    "syntaxhighlight|table|tbody|td|templatestyles|th|thead|timeline|tr|tt|u|ul|var|wbr"
)
# The program that took BabyLM's text out of Wikipedia escapes what it did not understand: hence &lt; as well as <.
TAG = re.compile(rf"(?:<|&lt;)/?({_TAG_NAMES})(?:{_ATTRIBUTE})*\s*/?(?:>|&gt;)", re.IGNORECASE)
BREAKS = {"br", "hr", "p", "li", "dd", "dt", "div", "td", "th", "tr"}
"""Tags that stand between words; the others stand within them, as in H<sub>2</sub>O."""

_SOUND = (
    "applause|applauds|applauding|beep(?:s|ing)?|cheer(?:s|ing)|chuckl(?:es|ing)|clap(?:s|ping)|clears throat|"
    "cough(?:s|ing)?|crying|gasp(?:s|ing)?|giggl(?:es|ing)|groan(?:s|ing)?|inaudible|indistinct|laugh(?:s|ter|ing)?|"
    "moan(?:s|ing)?|music|panting|scream(?:s|ing)|sigh(?:s|ing)?|silence|sniff(?:s|les|ling|ing)|snor(?:es|ing)|"
    "sob(?:s|bing)|unintelligible|whimper(?:s|ing)|whistl(?:es|ing)"
)
# "(Applause)", "[soft music]", "(audience laughs loudly)", "[Music playing]", but not "(the music industry)".
_CUE = rf"(?:[\w'’-]+\s+)?(?:{_SOUND})(?:\s+(?:\w+ly|plays|playing|stops|ends|fades|continues))?[.!?:…]*"
CUE = re.compile(rf"\s*(?:\(\s*{_CUE}\s*\)|\[\s*{_CUE}\s*\]|^\W*\[[^][]*\]\W*$|[♩♪♫♬])", re.IGNORECASE)


# Rules for a whole text.


def single_spaces(text: str) -> str:
    """Runs of spaces, tabs and no-break spaces become one space."""
    return re.sub(r"[ \t\u00a0]+", " ", text)


def close_punctuation(text: str) -> str:
    """No space before `. , ; ! ?`: these sources come tokenized, "you do ?"."""
    return re.sub(r"[ \t\u00a0]([.,;!?])", r"\1", text)


def close_apostrophes(text: str) -> str:
    """No space between a word and any `'x`: "Dan 's" becomes "Dan's", and "of 'em", by mistake, "of'em"."""
    return re.sub(r"(\w)[ \t\u00a0](['’]\w)", r"\1\2", text)


def close_clitics(text: str) -> str:
    """No space before `'s 'll 'm 'd 've 're 't`; a word of its own that begins with an apostrophe keeps its space.

    Of the 4831 spaces that `close_apostrophes` takes out of cbt.train, 76 stand before such a word, most often "'em".
    """
    return re.sub(r"(?<=\w)[ \t\u00a0](?=['’](?:s|ll|m|d|ve|re|t)\b)", "", text, flags=re.IGNORECASE)


def glue_blank_lines(text: str) -> str:
    """Two line ends become none: what they separated is one line now."""
    return text.replace("\n\n", "")


def one_blank_line(text: str) -> str:
    """However many blank lines become one, and none at the top."""
    return re.sub(r"\n\s*\n", "\n\n", text).lstrip("\n")


def glue_titles(text: str) -> str:
    """`= = = T = = =` and its line end become `T`: where the paragraph is the next line, it begins with the title."""
    return re.sub(r"= = = (.+?) = = =\n", r"\1", text)


def strip_lines(text: str) -> str:
    """No white space around a line; the last line end is gone, too."""
    return "\n".join(line.strip() for line in text.splitlines())


def drop_first_character(text: str) -> str:
    """Nothing but the first character goes, whatever it is."""
    return text[1:]


def recase_lines(text: str) -> str:
    """`recase_published` on every line, stripped; the last line end is gone."""
    return "\n".join(recase_published(line).strip() for line in text.splitlines())


def drop_credits(text: str) -> str:
    """Lines with "subtitle" in them, "Subtitles by …", except a last line that has no line end."""
    return re.sub(r"(?mi)^.*subtitle.*\n", "", text)


def drop_all_credits(text: str) -> str:
    """Lines with "subtitle" in them, the last line too."""
    return re.sub(r"(?mi)^.*subtitle.*(?:\n|\Z)", "", text)


# Rules for one line.


def recase_published(line: str) -> str:
    """A line in capitals as sentences: l, a misread I, becomes I; then only the first character of a sentence is upper.

    A line is in capitals if half of its characters are, spaces included but `.!?` and what is in parentheses not. If
    nothing else is left ("...", "(Applause)") the published program divided by zero; there is nothing to
    reproduce, and the line stays.
    """
    body = re.sub(r"\(.*?\)|[.!?]", "", line)
    if not body or sum(map(str.isupper, body)) / len(body) < 0.5:
        return line
    return "".join(part.capitalize() for part in SENTENCE_END.split(line.replace("l", "I")))


def recase(line: str) -> str:
    """A line in capitals as sentences, which begin with a capital even after a quotation mark, and with "I" kept.

    A line is in capitals if two of them, or an l and one, stand side by side, and half of its letters are capitals,
    what is in parentheses or brackets apart: so that "A. B." and "Al" stay. There an l becomes I where it is a word or
    stands beside a capital: "lT", "WlLL", but not "I'll".
    """
    letters = [c for c in re.sub(r"\(.*?\)|\[.*?\]", "", line) if c.isalpha()]
    if not letters or sum(map(str.isupper, letters)) / len(letters) < 0.5 or not CAPITALS.search(line):
        return line
    lowered = MISREAD_I.sub("I", line).lower()
    sentences = (
        re.sub(r"[^\W\d_]", lambda first: first[0].upper(), part, count=1) for part in SENTENCE_END.split(lowered)
    )
    return re.sub(r"\bi\b", "I", "".join(sentences))


def drop_cues(line: str) -> str:
    """Non-verbal cues of a subtitle: "(Applause)", "[soft music]", a line that is all in brackets, and note signs.

    Only a short parenthesis that names a sound is a cue: others are speech, "(which was in 1975)". What is sung
    between note signs is language and stays. A line with no letter or digit left is empty.
    """
    bare = CUE.sub("", line)
    return line if bare == line else bare.strip() if any(map(str.isalnum, bare)) else ""


def drop_tags(line: str) -> str:
    """HTML and wiki tags, escaped ones too; "a < b", "<3" and "List<String>" are none. What they enclose stays."""
    bare = TAG.sub(lambda tag: " " if tag[1].lower() in BREAKS else "", line)
    return line if bare == line else re.sub(r" {2,}", " ", bare).strip()


def bare_title(line: str) -> str:
    """`= = = T = = =` becomes `T`, on a line of its own as before."""
    return HEADING.sub(r"\1", line)


def each_line(*edits: Edit) -> Edit:
    """A rule that does edits to every line until they change no more; a line that they leave empty is gone."""

    def settled(line: str) -> str:
        before = None
        while before != line:
            before = line
            for edit in edits:
                line = edit(line)
        return line

    def rule(text: str) -> str:
        lines = ((line, settled(line)) for line in text.split("\n"))
        return "\n".join(new for old, new in lines if new or not old.strip())

    return rule


class BabyLMSource(NamedTuple):
    """The rules of a source, in the order in which they are applied."""

    published: Sequence[Edit]
    sound: Sequence[Edit]


RULES: dict[str, BabyLMSource] = {
    # What adults say to children, an utterance a line, tokenized: "you do ?". No blank lines, no cues.
    "aochildes": BabyLMSource(
        published=[single_spaces, close_punctuation],
        sound=[single_spaces, close_punctuation],
    ),
    # Transcripts of speech, an utterance a line; blank lines separate conversations.
    "bnc_spoken": BabyLMSource(
        published=[single_spaces, close_punctuation, glue_blank_lines],
        sound=[single_spaces, close_punctuation, one_blank_line],
    ),
    # Children's books, a sentence a line, tokenized as in the Penn Treebank: "` It is a Sodno , I suppose ? '", -LRB-.
    "cbt": BabyLMSource(
        published=[single_spaces, close_punctuation, close_apostrophes],
        sound=[single_spaces, close_punctuation, close_clitics],
    ),
    # Tales, a paragraph a line. Parentheses are part of the tale, and brackets explain words: "coracles [simple boat]".
    "children_stories": BabyLMSource(published=[], sound=[]),
    # Books in lines of a fixed width, blank lines between paragraphs.
    "gutenberg": BabyLMSource(published=[], sound=[]),
    # Films, a caption a line, with credits ("Subtitles by …"), and cues and notes for the deaf.
    "open_subtitles": BabyLMSource(
        published=[drop_credits],
        sound=[each_line(drop_cues), drop_all_credits],
    ),
    # Captions of lectures, many of them in capitals with I misread as l, and with cues: "(Applause)".
    "qed": BabyLMSource(
        published=[recase_lines],
        sound=[each_line(str.strip, recase, drop_cues)],
    ),
    # Articles: the title, then a paragraph a line, then a blank line.
    "simple_wikipedia": BabyLMSource(
        published=[glue_blank_lines],
        sound=[each_line(drop_tags), one_blank_line],
    ),
    # Telephone speech, an utterance a line, as it was said: "and I like, uh, gymnastics,".
    "switchboard": BabyLMSource(published=[], sound=[]),
    # Articles: `= = = Title = = =`, then paragraphs, with blank lines around.
    "wikipedia": BabyLMSource(
        published=[glue_titles, strip_lines, drop_first_character, glue_blank_lines],
        sound=[each_line(str.strip, drop_tags, bare_title), one_blank_line],
    ),
}


@dataclass(frozen=True)
class Counts:
    """How much text there is."""

    words: int
    """Runs of characters other than white space."""
    bytes: int
    """In UTF-8."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.words + other.words, self.bytes + other.bytes)


def count(text: str) -> Counts:
    """The words and bytes of a text."""
    return Counts(len(text.split()), len(text.encode()))


def source_of(file: Path) -> str:
    """The source that a file holds, by its name up to the first dot: `aochildes.train`, `aochildes.dev.txt`.

    Raises:
        UserError: there are no rules for such a source.
    """
    source = file.name.partition(".")[0]
    if source not in RULES:
        raise UserError(f"{file}: there are no cleaning rules for {source!r}; the sources are {', '.join(RULES)}")
    return source


def clean(source: str, text: str, rules: RuleSet = "sound") -> str:
    """The text of a source, a key of `RULES`, cleaned."""
    for rule in getattr(RULES[source], rules):
        text = rule(text)
    return text
