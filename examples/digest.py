from datetime import timedelta

import segue


@segue.step(retry=3, timeout=timedelta(seconds=30))
def read(path: str) -> str:  # sync: runs on a thread
    with open(path) as file:
        return file.read()


@segue.flow
async def summarise(text: str) -> str:
    return await segue.generate(f"Summarise in five lines:\n{text}")


@segue.flow
async def digest(paths: list[str]) -> str:
    texts = segue.map(read, paths, limit=20, errors="skip")  # a pipeline is a map over a map:
    parts = await segue.map(summarise, texts)  # each item moves on as soon as it is there
    while len(parts) > 1:
        groups = ["\n\n".join(parts[i : i + 20]) for i in range(0, len(parts), 20)]
        parts = await segue.map(summarise, groups)
    return parts[0]
