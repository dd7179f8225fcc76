"""The asyncio shell: engine, executor, worker and lanes."""
