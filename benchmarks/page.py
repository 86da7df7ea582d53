"""docs/performance.md: a head that explains it, and the tables."""

import re
from collections.abc import Sequence

from benchmarks.aims import NOT_MEASURED
from benchmarks.table import Table

HEAD = """\
# Performance

The cost of the losses and of what surrounds them. One command writes all of this file.

```bash
make bench
```

One section can be measured anew, in an earlier page. It then says so, with its own time and machine:

```bash
python -m benchmarks --only trainers --into docs/performance.md
```

The GPU's column is filled on a machine with a GPU that has torch and transformers, from a folder of wheels:

```bash
make wheels GPU_PYTHON=3.12   # where there is a network: downloads what else is needed into build/wheels
make bench-gpu                # on the machine: at most 8 minutes, all results in build/gpu.json as they come
```

It first proves the contract there (chunked = naive, captured = live, compiled = eager, one wait a step). Its exit code
is 0 only if that holds. `python -m benchmarks.gpu --small` rehearses it on any machine. Kept as
`docs/performance-gpu.json`, its results fill the GPU's column of this page, and its tables stand at the end.

How to read it:

- **Ratios, not seconds.** All compared variants ran in the same process and in the same rounds, and each round had a
  new random order. `1.034 (1.021)` is the median over rounds of the ratio within a round, and the ratio of the best
  times. Milliseconds are given for scale only: they depend on the machine.
- **One thread on one pinned core**, timed by the process's own clock; on a GPU by CUDA's events. Compiling is not
  counted. All variants, also a peer's, have the memory settings of potstill's commands (`docs/from-trl.md`).
- **Right first.** Each variant, also a peer's, is compared with a float64 reference on the same inputs that it is
  timed on. The value and the gradients for hidden states and head weight must each be within a relative error
  (Frobenius norm) of 1e-4 in fp32 and 3e-2 in bf16, where rounding the logits alone costs up to 2e-2. A variant that
  runs in bf16 must also be right on the same numbers in fp32. A variant that misses is **refused**: its row says by
  how much, and it is not timed.
- **Loss head**: forward and backward from the hidden states of student and teacher, over the matrix products that
  every variant needs: both logits, and the gradients for hidden states and head. The products are computed whole and
  in chunks, and the faster way is the scale. Those in chunks write their logits into memory that exists already, as
  potstill does after the first step.
- **Step**: forward and backward of a student with random weights. Its shape is real but it has few layers, so the
  loss weighs more than in practice. There is no optimizer, which would bring every ratio nearer to one. bf16 is
  autocast over fp32 weights, as `bf16=True` trains. The best cross-entropy step is the fastest of all right ones, not
  our own.
- **Whole Trainer steps** are those of real trainers, with loader, optimizer (AdamW) and all: `Trainer`,
  `DistilTrainer`, and TRL's `GKDTrainer` and `DistillationTrainer`. Each is built anew in each round from copies of the
  same models, and its first step is not counted. TRL's take the divergence alone, and write no text: they get the same
  rows. A figure of ours that is behind the fastest peer's is set in bold.
- **`potstill`** is the eager path. **`potstill, compiled`** is the path of runs that are long enough to pay for
  compiling (`losses/row_gradients_compiled.py`). Aims are judged by the compiled path.
- **Steps across tokenizers** begin with tokens of the student: reading and aligning the text is part of ours, and the
  teacher reads the same text in tokens of its own. From captured spans, to find and verify the records is part of it.
  TRL's GOLD gets its own tokens and offsets ready. It is checked against the definition in its documentation, which is
  another one than ours.
- **Peers** get hidden states at supervised tokens only, which is less work than most of them have in their own
  project. TRL's chunked loss is left out of the loss head in bf16 on a CPU, where it takes ten times as long as all
  others together.
"""


def page(facts: Sequence[str], summary: Table, parts: Sequence[tuple[str, Sequence[Table]]], on_gpu: str = "") -> str:
    """The whole file; ``on_gpu`` is the part about a GPU, with its own headings."""
    blocks = [HEAD, "## This run", "\n".join(f"- {fact}" for fact in facts), summary.markdown()]
    for heading, tables in parts:
        blocks += [f"## {heading}", *(table.markdown() for table in tables)]
    blocks += [on_gpu] if on_gpu else []
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def with_section(text: str, heading: str, facts: Sequence[str], summary: Table, tables: Sequence[Table]) -> str:
    """An earlier page with a section that was measured anew, the aims that it measures, and the head of today.

    Args:
        text: the earlier page.
        heading: the section's.
        facts: those of the run that measured it.
        summary: the table of aims, with the figures of this run alone.
        tables: the section's.
    """
    told = "Measured by itself, after the rest of this page:\n\n" + "\n".join(f"- {fact}" for fact in facts)
    blocks = _blocks(text)
    new = "\n\n".join([f"## {heading}", told, *(table.markdown().rstrip("\n") for table in tables)]) + "\n\n"
    places = [at for at, block in enumerate(blocks) if block.startswith(f"## {heading}\n")]
    if places:
        blocks[places[0]] = new
    else:  # before what is about a GPU, which stands at the end
        ends = [at for at, block in enumerate(blocks) if block.startswith("## On a GPU\n")]
        blocks.insert(ends[0] if ends else len(blocks), new)
    return "\n".join([HEAD, "".join(_with_aims(block, summary) for block in blocks[1:]).rstrip("\n")]) + "\n"


def _blocks(text: str) -> list[str]:
    """What stands before the first heading of a section, and then each section with its heading."""
    return re.split(r"^(?=## )", text, flags=re.MULTILINE)


def _with_aims(block: str, summary: Table) -> str:
    """The block, with the table of aims filled from ``summary`` where that has a figure."""
    title = f"### {summary.title}\n"
    if title not in block:
        return block
    before, _, rest = block.partition(title)
    old = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rest.splitlines() if line[:1] == "|"]
    filled = Table(summary.title, summary.header, summary.note)
    seen: dict[str, int] = {}
    for row in summary.rows:
        # Several aims are called "the same, bf16". They stand in one order.
        number = seen[row[0]] = seen.get(row[0], 0) + 1
        earlier = [cells for cells in old[2:] if cells[0] == row[0]][number - 1 : number]
        known = earlier[0] if earlier else row
        cpu = known[2:5] if row[2] == NOT_MEASURED else row[2:5]
        gpu = known[5:] if row[6] == NOT_MEASURED else row[5:]
        filled.add(*row[:2], *cpu, *gpu)
    return before + filled.markdown() + "\n\n"
