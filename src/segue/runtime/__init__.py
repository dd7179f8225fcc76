"""The asyncio shell: the engine, its worker, and rooms for a wake, for calls, for lanes and for mail."""
