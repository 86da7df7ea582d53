"""`python -m potstill`, which is what `torchrun -m potstill` starts."""

from potstill.cli.main import main

main()
