"""Generation: lets models answer prompts, and filters the answers to learn from."""
