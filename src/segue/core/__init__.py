"""Decisions: what a journal demands, when a lane submits, how long to back off. No asyncio, no clock, no I/O."""
