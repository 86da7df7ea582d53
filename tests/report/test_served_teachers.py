from potstill.recipe.teachers import PotstillTeacher, ScoringTeacher, WritingTeacher
from potstill.report.served_teachers import notes_of_served

FACTS = {"served": {"model": "M", "version": "0.32.0", "noise": {"mean": 0.0123, "largest": 0.5}}}
TRAFFIC = {"requests": 10, "tokens_read": 2_000_000, "tokens_written": 500_000, "bytes_received": 3_000_000}


def teacher(**more) -> ScoringTeacher:
    return ScoringTeacher(server="http://host/v1", model="M", api="vllm", **more)


def test_noise_and_the_meaning_of_figures_are_said():
    notes = notes_of_served("big", teacher(), FACTS, [])
    assert len(notes) == 2
    assert "vllm 0.32.0" in notes[0]
    assert "by 0.012 nats on average and by 0.5 at most" in notes[0]
    assert "lower bound" in notes[1]


def test_requests_tokens_and_price_of_all_steps_are_added_up():
    price = {"per_million_read": 0.5, "per_million_written": 2.0, "currency": "EUR"}
    said = notes_of_served("big", teacher(price=price), FACTS, [TRAFFIC, TRAFFIC])[2]
    assert "20 requests, 4,000,000 tokens read, 1,000,000 written" in said
    assert "for 4.00 EUR" in said
    assert "EUR" not in notes_of_served("big", teacher(), FACTS, [TRAFFIC])[2]


def test_a_teacher_that_sends_hidden_states_has_whole_distributions_and_a_price():
    price = {"per_million_read": 0.5, "per_million_written": 2.0, "currency": "EUR"}
    given = PotstillTeacher(server="http://host/v1", api="potstill", price=price)
    whole, asked = notes_of_served("big", given, {"hosted": {"model": "M", "dtype": "bfloat16"}}, [TRAFFIC])
    assert "behind `potstill serve`, in bfloat16" in whole
    assert "lower bound" not in whole
    assert "for 2.00 EUR" in asked


def test_a_teacher_that_only_writes_is_compared_with_nobody():
    given = WritingTeacher(server="http://host", model="M", api="llama_cpp")
    noise, told = notes_of_served("big", given, FACTS, [])
    assert "by 0.012 nats on average and by 0.5 at most" in noise
    assert "the 20 likeliest tokens" in told
    assert "no model is compared with it" in told
