"""One answer behind two prompts: its tokens are the same, wherever they stand, and so is what is said about them."""

import copy

import pytest
import torch
from transformers import AddedToken

from potstill.losses.chunked import distillation_loss
from potstill.losses.model_head import head_of
from potstill.losses.reading import labels_of, read_batch
from potstill.losses.supervised import supervised_positions
from potstill.losses.terms import Loss
from potstill.recipe.prompts import SHIPPED, Prompt, Strategy
from potstill.teachers.live import LiveTeacher
from potstill.text.batching import Collator
from potstill.text.prompts import (
    PromptedCollator,
    Prompter,
    end_token_id,
    prompt_ids,
    teacher_batch,
    template_fingerprint,
)
from potstill.words import IGNORE_INDEX, UserError
from tiny import documents, gpt2, llama, tokenizer

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
END = 0
FEW_SHOT = Strategy(
    teacher=Prompt(
        system="You know {{ topic }}.",
        user="Q: {{ question }}\nA:",
        examples=[{"question": "What sails?", "answer": "boats"}, {"question": "In winter?", "answer": "nobody"}],
    ),
    student=Prompt(user="Q: {{ question }}\nA:"),
)
STRATEGIES = {**SHIPPED, "few-shot": FEW_SHOT}
ROOMY = 10_000


def chatty(template=CHAT):
    made = copy.deepcopy(tokenizer())
    made.chat_template = template
    return made


TOKENIZERS = pytest.mark.parametrize("tokens", [tokenizer(), chatty()], ids=["plain", "chat"])
SIDES = pytest.mark.parametrize("side", ["left", "right"])


def rows(count=6):
    """Questions, references and answers of very different lengths."""
    made = []
    for index, text in enumerate(documents(count)):
        words = text.split()
        question, answer = " ".join(words[: 3 + index]), " ".join(words[2 : 12 - index])
        made.append({"question": question, "reference": text[:40], "answer": answer, "topic": "the river"})
    return made


def prompted(tokens, strategy="ground-truth", count=6, longest=ROOMY, teacher_longest=ROOMY):
    prompter = Prompter({strategy: STRATEGIES[strategy]}, tokens, longest, teacher_longest)
    return [prompter(row, f"row {index}")[strategy] for index, row in enumerate(rows(count))]


def taught(batch):
    """The ids of a batch's supervised tokens, as the losses take them, read back from what the model reads."""
    positions, labels = supervised_positions(labels_of(batch))
    assert torch.equal(batch["input_ids"].flatten()[positions + 1], labels)
    return labels.tolist()


@TOKENIZERS
@SIDES
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("longest", [ROOMY, 50])
def test_supervised_tokens_are_the_answers_to_both(tokens, side, strategy, longest):
    limits = {"longest": longest, "teacher_longest": ROOMY}
    samples = prompted(tokens, strategy, **limits)
    assert any(one["answer_cut"] for one in samples) == (longest < ROOMY)
    batch = PromptedCollator(pad_token_id=1, side=side)(samples)
    expected = []
    for row, one in zip(rows(), samples, strict=True):
        whole = [*tokens(row["answer"], add_special_tokens=False)["input_ids"], END]
        expected += whole[: len(whole) - one["answer_cut"]]
    assert taught(batch) == expected
    assert taught(teacher_batch(batch)) == expected


@TOKENIZERS
def test_prompts_differ_in_length_and_answers_in_place(tokens):
    samples = prompted(tokens)
    for one in samples:
        assert one["teacher_answer_start"] > one["answer_start"] > 0
        assert one["input_ids"][one["answer_start"] :] == one["teacher_input_ids"][one["teacher_answer_start"] :]
        assert one["labels"][: one["answer_start"]] == [IGNORE_INDEX] * one["answer_start"]
        assert one["labels"][one["answer_start"] :] == one["input_ids"][one["answer_start"] :]
    assert len({one["answer_start"] for one in samples}) > 3


def test_plain_text_is_paragraphs_after_the_start_token():
    row = {"question": "Why?", "topic": "salt"}
    ids = prompt_ids(tokenizer(), FEW_SHOT.teacher, row, "row 0", "prompts.few-shot.teacher")
    assert tokenizer().decode(ids) == (
        "<|endoftext|>You know salt.\n\nQ: What sails?\nA:\n\nboats\n\nQ: In winter?\nA:\n\nnobody\n\nQ: Why?\nA:\n\n"
    )


def test_a_chat_template_is_used_and_ends_where_the_answer_begins():
    row = {"question": "Why?", "topic": "salt"}
    ids = prompt_ids(chatty(), FEW_SHOT.teacher, row, "row 0", "prompts.few-shot.teacher")
    assert chatty().decode(ids) == (
        "[system]You know salt.<|endoftext|>\n[user]Q: What sails?\nA:<|endoftext|>\n[assistant]boats<|endoftext|>\n"
        "[user]Q: In winter?\nA:<|endoftext|>\n[assistant]nobody<|endoftext|>\n[user]Q: Why?\nA:<|endoftext|>\n"
        "[assistant]"
    )


def test_an_answer_ends_as_the_chat_template_ends_a_turn():
    made = chatty(CHAT.replace("<|endoftext|>", "<|turn|>"))
    made.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    assert end_token_id(made) == made.convert_tokens_to_ids("<|turn|>") != made.eos_token_id
    assert end_token_id(tokenizer()) == tokenizer().eos_token_id
    # What is no special token ends nothing.
    made = chatty(CHAT.replace("<|endoftext|>", "<turn>"))
    made.add_tokens([AddedToken("<turn>", special=False)])
    assert end_token_id(made) == made.eos_token_id


def test_without_any_end_token_nothing_is_taught():
    made = copy.deepcopy(tokenizer())
    made.eos_token = None
    with pytest.raises(UserError, match="never learn to stop"):
        end_token_id(made)


def test_no_token_spans_prompt_and_answer():
    # Read in one piece, "water" would be fewer tokens than "wat" and "er" are.
    tokens = chatty("{% for m in messages %}{{ m.content }}{% endfor %}")
    strategy = Strategy(teacher=Prompt(user="{{ question }}"), student=Prompt(user="{{ question }}"))
    one = Prompter({"s": strategy}, tokens, ROOMY, ROOMY)({"question": "stone and wat", "answer": "er"}, "row 0")["s"]
    together = tokens("stone and water", add_special_tokens=False)["input_ids"]
    assert len(one["input_ids"]) - 1 > len(together)
    assert tokens.decode(one["input_ids"]) == "stone and water<|endoftext|>"
    assert tokens.decode(one["labels"][one["answer_start"] :]) == "er<|endoftext|>"


@TOKENIZERS
def test_cut_is_the_answers_end_in_both_alike(tokens):
    whole = prompted(tokens)
    for limits in ({"longest": 50}, {"teacher_longest": 240}):
        samples = prompted(tokens, **limits)
        assert any(one["answer_cut"] for one in samples)
        for one, before in zip(samples, whole, strict=True):
            cut = one["answer_cut"]
            assert one["input_ids"] == before["input_ids"][: len(before["input_ids"]) - cut]
            assert one["teacher_input_ids"] == before["teacher_input_ids"][: len(before["teacher_input_ids"]) - cut]
            assert len(one["input_ids"]) <= limits.get("longest", ROOMY)
            assert len(one["teacher_input_ids"]) <= limits.get("teacher_longest", ROOMY)
            assert (one["input_ids"][-1] == END) == (cut == 0)


def test_an_answer_that_just_fits_is_whole_and_one_token_more_cuts_its_end_token_alone():
    (one,) = prompted(tokenizer(), count=1)
    (fits,) = prompted(tokenizer(), count=1, longest=len(one["input_ids"]))
    assert fits == one
    (cut,) = prompted(tokenizer(), count=1, longest=len(one["input_ids"]) - 1)
    assert cut["answer_cut"] == 1
    assert cut["input_ids"] == one["input_ids"][:-1]


def test_all_strategies_teach_the_same_tokens():
    # The longest of the prompts decides for all of them; alone, the short ones would keep more.
    limits = {"longest": ROOMY, "teacher_longest": 240}
    together = Prompter(STRATEGIES, tokenizer(), **limits)
    for index, row in enumerate(rows()):
        answers = [one["input_ids"][one["answer_start"] :] for one in together(row, f"row {index}").values()]
        assert answers == [answers[0]] * len(STRATEGIES)
    assert together(rows()[2], "row 2")["base"]["answer_cut"] > 0
    assert Prompter({"base": SHIPPED["base"]}, tokenizer(), **limits)(rows()[2], "row 2")["base"]["answer_cut"] == 0


@pytest.mark.parametrize(("longest", "teacher_longest", "side"), [(20, ROOMY, "student"), (ROOMY, 30, "teacher")])
def test_a_prompt_that_leaves_no_room_is_refused(longest, teacher_longest, side):
    row = {**rows()[0], "question": "why " * 40}
    with pytest.raises(UserError) as told:
        Prompter({"base": SHIPPED["base"]}, tokenizer(), longest, teacher_longest)(row, "a.jsonl, line 3")
    sentence = str(told.value)
    assert sentence.startswith(f"a.jsonl, line 3: `prompts.base.{side}` makes a prompt of ")
    assert f"leaves nothing of the {side}'s {min(longest, teacher_longest)} to the answer" in sentence


def test_room_for_one_token_is_room():
    (one,) = prompted(tokenizer(), count=1)
    (least,) = prompted(tokenizer(), count=1, longest=one["answer_start"] + 1)
    assert len(least["input_ids"]) - least["answer_start"] == 1
    with pytest.raises(UserError, match="leaves nothing"):
        prompted(tokenizer(), count=1, longest=one["answer_start"])


@pytest.mark.parametrize(
    ("user", "row", "sentence"),
    [
        (
            "{{ qestion }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `prompts.s.teacher.user` uses the field `qestion`, and the fields there are question, answer, "
            "level",
        ),
        (
            "{{ question }} {{ reference }}",
            {"question": "a", "answer": "b", "reference": None},
            "line 1: `prompts.s.teacher.user` uses the field `reference`, and the fields there are question, answer",
        ),
        (
            "{{ question.first }}",
            {"question": "a", "answer": "b"},
            "line 1: `prompts.s.teacher.user` cannot be filled in ('str object' has no attribute 'first'), and the "
            "fields there are question, answer",
        ),
        (
            "{{ level / 0 }}",
            {"question": "a", "answer": "b", "level": 3},
            "line 1: `prompts.s.teacher.user` cannot be filled in (division by zero); mend the template",
        ),
        (
            "{% if level > 2 %}{{ question }}{% endif %}",
            {"question": "a", "answer": "b", "level": 1},
            "line 1: `prompts.s.teacher.user` comes out blank; mend the template, or leave the row out",
        ),
        (
            "{{ question }}",
            {"question": "a", "answer": " \n"},
            "line 1: has no text in `answer`, so there is nothing to learn; leave the row out",
        ),
        (
            "{{ question }}",
            {"question": "a"},
            "line 1: has no text in `answer`, so there is nothing to learn; leave the row out",
        ),
    ],
)
def test_a_row_and_a_template_that_do_not_fit_are_refused(user, row, sentence):
    with pytest.raises(UserError) as told:
        Prompter({"s": Strategy(teacher=Prompt(user=user))}, tokenizer(), ROOMY, ROOMY)(row, "line 1")
    assert str(told.value) == sentence


def test_an_example_without_a_field_of_the_template_is_named():
    prompt = Prompt(user="{{ question }} ({{ level }})", examples=[{"question": "a", "answer": "b"}])
    with pytest.raises(UserError) as told:
        prompt_ids(tokenizer(), prompt, {"question": "a", "level": 1}, "line 1", "prompts.s.teacher")
    assert str(told.value) == (
        "line 1: `prompts.s.teacher.examples.0` uses the field `level`, and the fields there are question, answer"
    )


REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + CHAT
FORGETTING = CHAT.replace("messages %}", "messages if m.role != 'system' %}", 1)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (REFUSING, "refuses it (no system role here)"),
        (FORGETTING, "leaves the system message out, or changes it; say it in another message"),
    ],
    ids=["refusing", "forgetting"],
)
def test_a_chat_template_that_loses_a_message_is_named(template, sentence):
    # Without this, two strategies that differ in the system message alone would be one experiment under two names.
    with pytest.raises(UserError) as told:
        prompt_ids(chatty(template), SHIPPED["confidence"].teacher, rows()[0], "line 1", "prompts.confidence.teacher")
    assert str(told.value) == f"line 1: `prompts.confidence.teacher`: the tokenizer's chat template {sentence}"


def test_a_fingerprint_is_of_the_prompt_and_of_the_chat_template():
    prints = [
        template_fingerprint(tokens, one.teacher) for tokens in (tokenizer(), chatty()) for one in SHIPPED.values()
    ]
    assert len(set(prints)) == 2 * len(SHIPPED)
    assert template_fingerprint(chatty(), SHIPPED["base"].teacher) in prints


@SIDES
def test_a_batch_is_padded_on_its_side_and_each_model_s_part_to_its_own_longest(side):
    samples = [
        {"input_ids": [5, 7, 8], "labels": [IGNORE_INDEX, 7, 8], "teacher_input_ids": [3, 4, 7, 8]},
        {"input_ids": [6, 9], "labels": [IGNORE_INDEX, 9], "teacher_input_ids": [2, 9]},
    ]
    for one, starts in zip(samples, (2, 1), strict=True):
        one |= {"answer_start": 1, "teacher_answer_start": starts, "answer_cut": 0}
    batch = PromptedCollator(pad_token_id=1, side=side)(samples)
    left = side == "left"
    assert batch["input_ids"].tolist() == [[5, 7, 8], [1, 6, 9] if left else [6, 9, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1] if left else [1, 1, 0]]
    assert batch["teacher_input_ids"].tolist() == [[3, 4, 7, 8], [1, 1, 2, 9] if left else [2, 9, 1, 1]]
    assert batch["teacher_labels"].tolist()[0] == [IGNORE_INDEX, IGNORE_INDEX, 7, 8]
    assert ("position_ids" in batch) == left
    if left:
        assert batch["teacher_position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]


def test_a_batch_without_a_teachers_part_is_the_teachers_too():
    batch = Collator(1)([{"input_ids": [1, 2, 3]}])
    assert teacher_batch(batch) == batch


def test_a_control_reads_the_same_samples_without_the_teachers_part():
    samples = prompted(chatty())
    both, alone = PromptedCollator(1)(samples), Collator(1)(samples)
    assert all(torch.equal(alone[name], both[name]) for name in alone)


@SIDES
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda one: one["teacher_input_ids"].__setitem__(-2, 299), "as supervised token"),
        (lambda one: one.update(teacher_answer_start=one["teacher_answer_start"] + 1), "as supervised token 0 to"),
        (lambda one: one["teacher_input_ids"].append(7), "supervised tokens to the student and"),
        (lambda one: one.update(labels=[IGNORE_INDEX] * len(one["labels"])), "has 0 supervised tokens to the student"),
        (
            lambda one: (
                one.update(teacher_input_ids=one["teacher_input_ids"][one["teacher_answer_start"] :])
                or one.update(teacher_answer_start=0)
            ),
            "supervised token",
        ),
    ],
    ids=["another token", "another place", "longer", "nothing", "no prompt"],
)
def test_answers_that_are_not_aligned_are_refused(side, spoil, sentence):
    samples = copy.deepcopy(prompted(tokenizer()))
    spoil(samples[3])
    with pytest.raises(UserError) as told:
        PromptedCollator(1, side)(samples)
    assert str(told.value).startswith("sample 3 of a batch has ")
    assert sentence in str(told.value)


MODELS = pytest.mark.parametrize("model", [llama(0), gpt2(0, n_positions=512)], ids=["llama", "gpt2"])


@MODELS
@SIDES
@TOKENIZERS
def test_the_teacher_says_what_it_says_of_each_answer_alone(model, side, tokens):
    samples = prompted(tokens, longest=50)
    batch = PromptedCollator(pad_token_id=1, side=side)(samples)
    target = LiveTeacher(model).target(teacher_batch(batch))
    alone = []
    for one in samples:
        with torch.no_grad():
            logits = model(torch.tensor([one["teacher_input_ids"]])).logits[0]
        alone.append(logits[one["teacher_answer_start"] - 1 : -1])
    found = target.hidden @ target.head.weight.T
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-4)


def divergence(model, batch):
    """The mean KL between a model under the teacher's prompts and itself under the student's."""
    head = head_of(model)
    states, labels = read_batch(model, head, batch)
    target = LiveTeacher(copy.deepcopy(model)).target(teacher_batch(batch))
    loss, _ = distillation_loss(states, head, labels, target, [Loss("forward_kl")], denominator=len(labels))
    return loss.item()


@MODELS
@SIDES
def test_under_one_prompt_a_model_differs_from_itself_in_nothing_and_under_two_it_does(model, side):
    collate = PromptedCollator(pad_token_id=1, side=side)
    assert abs(divergence(model, collate(prompted(chatty(), "base")))) < 1e-6
    assert divergence(model, collate(prompted(chatty(), "ground-truth"))) > 1e-2


@SIDES
def test_the_student_s_loss_does_not_know_what_the_teacher_was_asked(side):
    model, collate = llama(0), PromptedCollator(pad_token_id=1, side=side)
    states = [read_batch(model, None, collate(prompted(chatty(), name)))[0] for name in ("base", "confidence")]
    assert torch.equal(*states)
