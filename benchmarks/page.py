"""docs/performance.md: a head that says how to read it, and the tables."""

from collections.abc import Sequence

from benchmarks.table import Table

HEAD = """\
# Performance

What the losses and the store cost. All of this file is written by one command; nothing in it is typed by hand.

```bash
make bench
```

How to read it:

- **Ratios, not seconds.** Whatever is compared ran in the same process, in the same rounds, in an order shuffled anew
  each round. `1.034 (1.021)` is the median over rounds of the ratio within a round, and the ratio of the best times.
  Milliseconds stand beside for scale only: they belong to the machine.
- **One thread on one pinned core**, timed by the process's own clock; on a GPU by CUDA's events. Compiling is left out.
- **Right first.** Each variant, a peer's too, is compared with a float64 reference on the very inputs that it is timed
  on: the value, and the gradients for hidden states and head weight, each within a relative error (Frobenius norm) of
  1e-4 in fp32 and 3e-2 in bf16, where rounding the logits alone costs up to 2e-2; what runs in bf16 must also be right
  on the same numbers in fp32. One that misses is **refused**: the row says by how much, and has no time to quote.
- **Loss head**: forward and backward from hidden states of student and teacher, over the matrix products that nothing
  can do without: both logits, and the gradients for hidden states and head. The products are done whole and in chunks,
  and the faster is the scale. Those in chunks write their logits into memory that is there, as potstill does after the
  first step.
- **Step**: forward and backward of a student with random weights, real in shape and short of layers, so that the loss
  weighs more than it does in practice. No optimizer: it would bring every ratio nearer to one. bf16 is autocast over
  fp32 weights, as `bf16=True` trains. The best cross-entropy step is the fastest of all that are right, not our own.
- **`potstill`** is the eager path, **`potstill, compiled`** the one for runs long enough to pay for compiling
  (`losses/row_gradients_compiled.py`). Aims are judged by the latter.
- **Peers** get hidden states at supervised tokens only, which is kinder than how most of them are called. TRL's chunked
  loss is left out of the loss head in bf16 on a CPU, where it takes ten times as long as all else.
"""


def page(facts: Sequence[str], summary: Table, parts: Sequence[tuple[str, Sequence[Table]]]) -> str:
    """The whole file."""
    blocks = [HEAD, "## This run", "\n".join(f"- {fact}" for fact in facts), summary.markdown()]
    for heading, tables in parts:
        blocks += [f"## {heading}", *(table.markdown() for table in tables)]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"
