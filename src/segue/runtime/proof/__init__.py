"""Runs carried out once more, to see whether they come out the same. Nothing is sent and nothing written."""
