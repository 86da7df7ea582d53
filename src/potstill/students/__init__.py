"""Students: built from scratch, from a checkpoint, as a copy or by pruning; with or without an adapter."""
