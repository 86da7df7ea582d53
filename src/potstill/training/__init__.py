"""Training: the trainer, its callbacks, checkpoints to resume from and snapshots to look at."""
