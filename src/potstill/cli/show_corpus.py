"""Show corpus: prints conversations of a run's corpus, with what is learned of them in colour."""

from rich.console import Console

from potstill.data.conversations.audit import read_audit
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.report.audit_page import shown_conversations


def show_conversations(run: Run, count: int) -> None:
    """Print the first conversations of each source, as ``corpus/audit.html`` shows them.

    Raises:
        UserError: the corpus has no conversations.
    """
    file = run.path("corpus") / "audit.json"
    if not file.is_file():
        raise UserError("`--show` prints conversations, and this recipe has none; leave it out")
    console = Console(highlight=False, soft_wrap=True)
    for text in shown_conversations(read_audit(read_json(file)), count):
        console.print(text)
