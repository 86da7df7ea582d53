"""Logs and tokens from a run folder become the page's data."""

from potstill.report.data import Curve, Foreseen, Passage, Token, pair_metric, prompt_metrics


def test_a_curve_keeps_loss_terms_and_leaves_out_the_trainers_own_figures():
    logged = [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 3.0, "epoch": 0.5, "forward_kl": 1.5},
        {"step": 2, "train_runtime": 4.0, "num_input_tokens_seen": 64},
    ]
    curve = Curve.from_log("student", 3, logged)
    assert (curve.model, curve.seed) == ("student", 3)
    assert curve.points == (
        {"step": 1, "loss": 2.0, "learning_rate": 0.1, "forward_kl": 1.5, "tokens": 0},
        {"step": 2, "tokens": 64},
    )


def test_the_figures_of_written_answers_are_no_loss_terms_and_have_a_curve_of_their_own():
    logged = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.5, "reverse_kl": 0.3, "on_policy/kl": 0.2, "on_policy/age": 0.0},
        {"step": 2, "train_runtime": 4.0},
    ]
    assert Curve.from_log("student", 3, logged).points[1] == {"step": 2, "loss": 1.5, "reverse_kl": 0.3, "tokens": 0}
    assert Curve.of_written("student", 3, logged) == Curve("student", 3, ({"step": 2, "kl": 0.2, "age": 0.0},))


def test_a_first_token_has_its_text_alone():
    assert Token.from_dict({"text": "The"}) == Token("The")
    read = Token.from_dict(
        {"text": " a", "kl": 1.0, "student_nll": 2.0, "teacher_nll": 3.0, "teacher_top5": [["b", 1]]}
    )
    assert read == Token(" a", 1.0, 2.0, 3.0, (("b", 1),))
    assert read.apart == 1.0


def test_a_span_is_apart_by_what_the_student_finds_more_surprising():
    read = Token.from_dict({"text": " a word", "excess": -0.5, "student_nll": 2.0, "teacher_nll": 2.5})
    assert read == Token(" a word", None, 2.0, 2.5, excess=-0.5)
    assert read.apart == -0.5
    assert Passage("one", (Token("a"), read)).of_spans
    assert not Passage("one", (Token("a"), Token("b", 1.0))).of_spans


def test_a_metric_of_prompts_stands_beside_its_random_pairs():
    names = [metric.name for metric in prompt_metrics("facts")]
    assert names[:2] == ["facts/em", "facts/em_random"]
    assert [metric.baseline for metric in prompt_metrics("facts")[:2]] == [False, True]
    assert pair_metric("blimp").percent


def test_a_forecast_is_read_from_a_manifest_with_what_happened():
    told = {"seconds": None, "host_bytes": [1, 2, 3], "device_bytes": None, "disk_bytes": [4, 4, 4], "kwh": [1, 2, 2]}
    found = Foreseen.from_manifest({"forecast": told, "peak_memory": {"host": 9, "device": None}})
    assert found == Foreseen(None, (1, 2, 3), None, (4, 4, 4), 9, None, (1, 2, 2))
    assert Foreseen.from_manifest({"forecast": None, "peak_memory": None}) is None
