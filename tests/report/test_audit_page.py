"""Audit page: figures, reasons and coloured conversations; nothing of the data becomes markup."""

import io
import re

import pytest
from rich.console import Console

from potstill.data.conversations.audit import audit_of, read_audit
from potstill.data.conversations.samples import samples
from potstill.data.conversations.tally import ChatTally
from potstill.report.audit_page import audit_notes, render_audit, shown_conversations
from toy_chat import CASES, assistant, chat_tokenizer, conversation, settings, user

EVIL = "<script>alert('x')</script>[red]&amp;{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def audit():
    tally = ChatTally()
    given = [*CASES.values(), conversation(user(EVIL), assistant(f"I say {EVIL}."))]
    chosen = settings(template="qwen", sequence_length=300, on_bad_row="drop")
    list(samples(given, chat_tokenizer(), chosen, tally))
    tally.drop("chats.jsonl", "has no turn of the assistant")
    return audit_of(tally, chat_tokenizer(), "qwen")


def test_the_page_has_figures_reasons_and_the_digest(audit):
    page = render_audit(audit)
    (source,) = audit.sources
    for figure in (source.rows, source.samples, source.turns, source.turns_in_all, source.tokens, source.supervised):
        assert f"<td>{figure:,}</td>" in page
    assert f"{source.supervised / source.tokens:.1%}" in page
    assert "has no turn of the assistant" in page
    assert "longer than 300 tokens" in page
    assert audit.digest in page
    assert "rewrites the earlier turns" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page), "no network"


def test_learned_text_is_coloured_and_nothing_else(audit):
    page = render_audit(audit)
    coloured = re.findall(r'<span class="learned">(.*?)</span>', page, flags=re.DOTALL)
    assert "It rains.&lt;|im_end|&gt;" in coloured
    assert not [text for text in coloured if "Why?" in text or "im_start" in text]


def test_what_people_wrote_is_text(audit):
    page = render_audit(audit)
    assert "<script>" not in page
    assert "I say &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;[red]&amp;amp;{{ 7 * 7 }}.&lt;|im_end|&gt;" in page


def test_the_terminal_shows_the_same(audit):
    shown = list(shown_conversations(audit, 10))
    assert len(shown) == len(audit.sources[0].shown)
    plain = [text.plain for text in shown]
    assert any("── chats.jsonl:7\n" in text and "⟦It rains.<|im_end|>⟧" in text for text in plain)
    assert any(f"⟦I say {EVIL}.<|im_end|>⟧" in text for text in plain)
    assert len(list(shown_conversations(audit, 2))) == 2
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=200).print(shown[0])
    assert "\x1b[" in out.getvalue()


def test_an_audit_is_read_back_as_it_was(audit):
    import json

    assert read_audit(json.loads(json.dumps(audit.as_json()))) == audit


def test_parts_that_a_template_does_not_show_are_said(tmp_path):
    file = tmp_path / "forgetful.jinja"
    file.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tally = ChatTally()
    list(samples([CASES["reasoning"]], chat_tokenizer(), settings(template=str(file)), tally))
    notes = list(audit_notes(audit_of(tally, chat_tokenizer(), "forgetful")))
    assert notes == ["chats.jsonl: the chat template leaves out the reasoning of 2 learned turns."]


def test_a_corpus_of_nothing_has_a_page():
    assert "0.0% of 0 tokens" in render_audit(audit_of(ChatTally(), chat_tokenizer(), "chatml"))
