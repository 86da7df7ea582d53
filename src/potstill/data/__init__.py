"""Data: from documents and questions to samples of tokens, labels and batches."""
