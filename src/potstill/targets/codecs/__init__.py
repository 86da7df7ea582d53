"""Codecs: each keeps a part of the teacher's distribution and encodes it as bytes."""
