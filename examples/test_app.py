from app import Label, triage

from segue.testing import FakeModel, check, rerun


def fake() -> FakeModel:
    model = FakeModel()  # no network; an unmatched call fails and prints itself
    model.when("Classify").reply(Label("bug", urgent=True))
    model.when("Answer").reply("Restart it.")
    model.answer("Send this?", False)
    return model


async def test_urgent_and_refused() -> None:
    async with fake():
        assert await triage("It crashed") == "escalated"  # a flow is a function


async def test_any_mode_any_crash() -> None:  # live, batch, evicted at every wait, killed at every commit
    await check(triage, ["It crashed", "Where is it?"], model=fake())


async def test_old_runs_still_replay() -> None:  # `segue export RUN > tests/journals/…`
    await rerun(triage, "tests/journals/*.jsonl")
