"""Runs in this process's memory: for tests, for a desk, for work that may be lost with the process."""

from .store import MemoryStore

__all__ = ["MemoryStore"]
