"""Conversations: from rows of any chat format to tokens, labels and the places of the assistant's turns."""
