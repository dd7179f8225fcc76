"""Runs in one SQLite file, for one machine: durable, and shared by as many processes as you like."""

from .store import SqliteStore

__all__ = ["SqliteStore"]
