"""Students: built from nothing, from a checkpoint, or by pruning; with an adapter or without."""
