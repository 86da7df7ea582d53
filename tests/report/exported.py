"""Exported files with made-up figures, as a run's report has them: one that was measured, one that was refused."""

LOSS = {
    "model": "file",
    "metric": "loss",
    "value": 3.0,
    "low": 2.9,
    "high": 3.1,
    "n": 12,
    "seeds": None,
    "over_units": None,
}
CHANGE = {
    **{"a": "file", "b": "student", "metric": "loss", "difference": 0.02, "low": 0.01, "high": 0.03},
    **{"n": 12, "p": 0.01, "seeds": None, "over_units": None, "beyond_chance": True},
}
FILE = {
    "experiment": "student",
    "format": "gguf:Q8_0",
    "refused": None,
    "engine": "llama.cpp",
    "bytes": 88_000_000,
    "notes": ["llama.cpp puts no space before a text; begin texts with one"],
    "tokens_equal": 50,
    "template_equal": None,
    "tokens": 4000,
    "documents": 12,
    "loss": LOSS,
    "loss_difference": CHANGE,
    "kl": LOSS | {"metric": "kl", "value": 0.01, "low": 0.008, "high": 0.012},
    "answers": 20,
    "answers_equal": 17,
    "answers_tied": 2,
    "stop_rate": 0.5,
    "stop_rate_of_student": 0.25,
    "decode_tokens_per_second": 160.0,
    "decode_ratio": {"median": 4.4, "low": 4.0, "high": 5.0},
}
REFUSED = {"experiment": "student", "format": "gguf:F16", "refused": "llama.cpp cannot open it"}
