"""Refusals of a file that is not the student. The student plays the file, with one thing changed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.evaluation.document_scores import HeldOutBatches
from potstill.export.engines.transformers import Transformers
from potstill.export.held_out import HeldOutItems
from potstill.export.measure import Compared, measured
from potstill.metrics.bootstrap import Resampling
from tiny import documents, llama, tokenizer

TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def items():
    texts = documents(12)
    ids = [tokenizer()(text).input_ids[:24] for text in texts]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids}).to_list()
    units = [np.full(len(row) - 1, number) for number, row in enumerate(ids)]
    batches = HeldOutBatches(rows, units, [0] * len(rows), Collator(1), 4, None)
    return HeldOutItems(batches, texts, [row[:6] for row in ids[:4]])


def chatting():
    found = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
    found.chat_template = TEMPLATE
    return found


def engine(model=None, **changed):
    made = Transformers(model or llama(), chatting(), [0])
    for name, function in changed.items():
        setattr(made, name, function)
    return made


def measure(items, file, format_="gguf:F16"):
    return measured(Compared(engine(), file, format_, has_template=True), items, Resampling(0.95, 200))


def test_a_student_is_its_own_file(items):
    found = measure(items, engine())
    assert found["kl"]["value"] == found["loss_difference"]["difference"] == 0
    assert found["kl"]["high"] == 0, "a KL of 0 is no share of documents"
    assert (found["answers_equal"], found["answers_tied"], found["template_equal"]) == (4, 0, 4)
    assert found["documents"] == 12


def test_figures_are_over_documents_and_paired(items):
    close = llama()
    with torch.no_grad():
        close.lm_head.weight *= 1.01
    found = measure(items, engine(close))
    assert found["loss_difference"]["n"] == found["loss"]["n"] == 12
    change = found["loss"]["value"] - found["loss_of_student"]["value"]
    assert found["loss_difference"]["difference"] == pytest.approx(change)
    assert (
        found["loss_difference"]["high"] - found["loss_difference"]["low"]
        < found["loss"]["high"] - found["loss"]["low"]
    )


REFUSED = {
    "reads other tokens than the student in the text that begins '0. ": {"token_ids": lambda text: [5]},
    r"renders the chat template otherwise \(user\)": {"rendered": lambda messages: "otherwise"},
    "computes another model: KL to the student is": {"outputs": Transformers(llama(seed=1), None, [0]).outputs},
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_file_that_is_not_the_student_is_refused(items, why):
    with pytest.raises(UserError, match=why):
        measure(items, engine(**REFUSED[why]))


def test_an_answer_that_parts_at_a_tie_is_told_apart(items):
    def parted(prompt, most):
        ids, stopped = engine().written(prompt, most)
        return [(ids[0] + 1) % 300, *ids[1:]], stopped

    flat = llama()
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    for student, tied in ((flat, 4), (llama(), 0)):
        # It has no end token: the likeliest of equal tokens is the first one, which would stop it at once.
        pair = Compared(
            Transformers(student, chatting(), []), engine(student, written=parted), "merged", has_template=False
        )
        found = measured(pair, items, Resampling(0.95, 200))
        assert (found["answers_equal"], found["answers_tied"]) == (0, tied)


def test_a_prepared_text_is_what_the_engine_reads(items):
    read = []
    file = engine(token_ids=lambda text: read.append(text) or engine().token_ids(text.removeprefix(" ")))
    pair = Compared(engine(), file, "gguf:F16", has_template=False, prepare=lambda text: f" {text}")
    assert measured(pair, items, Resampling(0.95, 200))["template_equal"] is None
    assert all(text.startswith(" ") for text in read)


def test_a_template_that_refuses_a_role_is_compared_on_the_others(items):
    strict = chatting()
    strict.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    both = SimpleNamespace(student=Transformers(llama(), strict, [0]), file=Transformers(llama(), strict, [0]))
    found = measured(Compared(both.student, both.file, "merged", has_template=True), items, Resampling(0.95, 200))
    assert found["template_equal"] == 2
