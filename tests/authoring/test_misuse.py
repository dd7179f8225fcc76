"""What a type checker would have said: options and values that can't be are refused by name, with the cure."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import BadSignature, InvalidValue, WrongPlace
from segue.model.chat import as_messages
from segue.testing import FakeModel, ToolUse

SOON = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: segue.step(effect="once")(print), r"effect of step 'print': .* 'at-most-once'"),
        (lambda: segue.step(pool="gpu")(print), "pool of step 'print': .*'thread' or 'process'"),
        (lambda: segue.step(retry="3")(print), r"attempts of Retry\(\): .* whole number.* a str"),
        (lambda: segue.step(timeout=5)(print), r"timeout of step 'print': .*timedelta\(seconds=5\).* an int"),
        (lambda: segue.Retry(0), "attempts.* from 1 on"),
        (lambda: segue.Retry(2, wait=1.0), "wait of Retry.*timedelta"),
        (lambda: segue.Retry(2, on="OSError"), "on of Retry.*class"),
        (lambda: segue.Batch(late="maybe"), "late of Batch.*'wait' or 'live' or 'fail'"),
        (lambda: segue.Batch(within=5), "within of Batch.*timedelta"),
        (lambda: segue.Batch(max_lines=0), "max_lines of Batch.* from 1 on"),
        (lambda: segue.Live(concurrency=0), "concurrency of Live.* from 1 on"),
        (lambda: segue.Message("usr", "hi"), "role of Message.*'system' or 'user'"),
    ],
)
def test_a_value_that_cant_be(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(InvalidValue, match=told):
        make()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: segue.step(timout=SOON),
            r"step\(\) got an unexpected option 'timout'; did you mean 'timeout'\?",
        ),
        (lambda: segue.using(modl="m").__enter__(), r"using\(\) .* did you mean 'model'\?"),
        (lambda: segue.using(colour="red").__enter__(), r"it takes budget, deadline, .*tags"),
    ],
)
def test_an_option_that_isnt_there(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        make()


def pages(site: str) -> Iterator[str]:
    yield site


async def pages_as_they_come(site: str) -> AsyncIterator[str]:
    yield site


class Shop:
    def of_the_class(cls: Any) -> str:  # what stands below @classmethod
        return str(cls)

    @staticmethod
    def of_nobody() -> str:
        return "x"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: segue.step("name"), r"takes a function, not 'name'; a name is given as name='name'"),
        (lambda: segue.flow(3), r"segue\.flow\(\) takes a function, not 3"),
        (lambda: segue.step(pages), r"pages\(\) yields, and a step gives one result: return a list"),
        (lambda: segue.flow(pages_as_they_come), r"yields, and a flow gives one result: .*segue\.emit\(\)"),
        (
            lambda: segue.step(Shop.of_the_class),
            r"Shop\.of_the_class\(\) takes its class.*@staticmethod above",
        ),
        (lambda: segue.step(classmethod(Shop.of_the_class)), r"Shop\.of_the_class\(\) takes its class"),
        (lambda: segue.step(staticmethod(Shop.of_nobody)), r"above @staticmethod on Shop\.of_nobody\(\)"),
    ],
)
def test_what_can_be_no_step_and_no_flow(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        make()


def test_a_function_with_an_argument_of_that_name_is_a_step() -> None:
    def classify(cls: str) -> str:
        return cls

    assert segue.step(classify)


@pytest.mark.parametrize("prompt", [[{"role": "user", "content": "hi"}], 5, b"bytes", [], ["a", None]])
def test_what_is_no_prompt(prompt: Any) -> None:
    with pytest.raises(InvalidValue, match=r'prompt of generate\(\).*segue\.Message\("user"'):
        as_messages(prompt)


def _search(where: str) -> Callable[[str], str]:
    def search(q: str) -> str:
        """Search."""
        return f"{where}: {q}"

    return search


async def _even(n: int) -> bool:
    return n % 2 == 0


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda: segue.generate("x", temprature=1), "did you mean 'temperature'"),
        (lambda: segue.generate("x", deadline=5), "deadline: .*timedelta"),
        (lambda: segue.generate("x", tools=_search("a")), r"tools= takes a list .*tools=\[…\]"),
        (lambda: segue.generate("x", tools=[_search("a")("q")]), "tools= holds 'a: q', .*don't call it"),
        (
            lambda: segue.generate("x", tools=[_search("a"), _search("b")]),
            "two tools are called 'search'.*name=",
        ),
        (
            lambda: segue.generate("x", returns="int"),
            "'int': it is a value, not a type; give the type itself",
        ),
        (lambda: segue.sleep(5), r"sleep\(\): .*timedelta"),
        (lambda: segue.generate("x", temperature="hot"), r"temperature of generate\(\): .*a number.* a str"),
        (lambda: segue.generate("x", temperature=-0.1), r"temperature of generate\(\): .*from 0 on"),
        (lambda: segue.generate("x", max_turns=0), r"max_turns of generate\(\): .*from 1 on"),
        (lambda: segue.generate("x", repairs=-1), r"repairs of generate\(\): .*from 0 on"),
        (lambda: segue.generate("x", max_tokens=0.5), r"max_tokens of generate\(\): .*whole number"),
        (lambda: segue.generate("x", reasoning="deep"), r"reasoning of generate\(\): .*'high'.*'deep'"),
        (lambda: segue.ask("x", default="y"), r"default of ask\(\): .*a timeout beside it"),
        (lambda: segue.ask("x", timeout=5), r"timeout of ask\(\): .*timedelta"),
        (lambda: segue.receive(str, timeout=5), r"timeout of receive\(\): .*timedelta"),
        (lambda: segue.timeout(5).__aenter__(), r"timeout\(\): .*timedelta"),
        (lambda: segue.map(_even, [1], errors="ignore"), r"errors of map\(\): .*'skip'.*'ignore'"),
        (lambda: segue.map(_even, [1], limit=0), r"limit of map\(\)"),
        (lambda: segue.map(_even, 5), r"items of map\(\): .*iterable"),
    ],
)
async def test_in_a_run(act: Callable[[], Any], told: str) -> None:
    @segue.flow(name="misuse.flow")
    async def flow() -> None:
        await act()

    async with FakeModel().when("").reply("yes"):
        with pytest.raises((BadSignature, InvalidValue, TypeError), match=told):
            await flow()


async def test_two_tools_of_one_function_are_told_apart_by_name() -> None:
    @segue.flow(name="misuse.tools")
    async def flow() -> str:
        return await segue.generate("Find", tools=[_search("a"), segue.tool(_search("b"), name="search b")])

    async with FakeModel() as model:
        model.when("Find").reply(ToolUse("search", q="x"), ToolUse("search_b", q="y"), "found")
        assert await flow() == "found"
        assert model.calls[-1].text == "Find\na: x\nb: y"


async def test_of_an_engine() -> None:
    @segue.flow(name="misuse.run")
    async def flow() -> None: ...

    async with segue.Engine() as engine:
        with pytest.raises(TypeError, match="a run got an unexpected option 'modle'; did you mean 'mode"):
            await engine.run(flow(), modle="m")  # type: ignore[call-arg]


@segue.step
async def mail_out(text: str) -> str:
    return text


async def mail_later(text: str) -> None:
    await segue.sleep(SOON)
    await mail_out(text)


@segue.flow
async def leaves_tasks() -> str:
    started = [asyncio.create_task(mail_out("at once")), asyncio.create_task(mail_later("later"))]
    return f"{len(started)} are lost"


@segue.flow
async def leaves_nothing() -> str:
    async for _ in segue.map(mail_out, ["a", "b", "c"], limit=1):
        break
    spare = asyncio.create_task(mail_later("never"))
    await segue.sleep(timedelta(0))
    spare.cancel()
    await asyncio.gather(asyncio.create_task(mail_out("x")), spare, return_exceptions=True)
    return "all in hand"


async def test_a_task_that_is_left_behind_is_told_of_once_a_place(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeModel():
        assert [await leaves_tasks(), await leaves_tasks()] == ["2 are lost"] * 2
    told = sorted(record.getMessage() for record in caplog.records if "unfinished" in record.getMessage())
    assert len(told) == 2
    code = leaves_tasks.__wrapped__.__code__  # type: ignore[attr-defined]  # of functools.wraps
    line = mail_later.__code__.co_firstlineno + 1
    assert f"mail_later() at {__file__}:{line}: " in told[0]
    assert "Await the task" in told[0]
    assert f"mail_out() at {__file__}:{code.co_firstlineno}: " in told[1]
    assert "flow leaves_tasks " in told[1]


async def test_what_is_awaited_cancelled_or_broken_off_isnt_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeModel():
        assert await leaves_nothing() == "all in hand"
    assert not [record for record in caplog.records if "unfinished" in record.getMessage()]


@segue.flow
async def calls_from_a_thread(how: str) -> str:
    def work() -> str:
        return asyncio.run(mail_out("x"))

    loop = asyncio.get_running_loop()
    match how:
        case "to_thread":
            return await asyncio.to_thread(work)
        case "default":
            return await loop.run_in_executor(None, work)
    with ThreadPoolExecutor(1) as pool:
        if how == "own":
            return await loop.run_in_executor(pool, work)
        return await asyncio.wrap_future(pool.submit(work))


@segue.step
async def calls_inside_a_step() -> str:
    return await asyncio.to_thread(lambda: asyncio.run(mail_out("x")))


@segue.flow
async def has_it_called() -> str:
    return await calls_inside_a_step()


async def test_a_step_that_a_thread_of_the_run_calls() -> None:
    loop = asyncio.get_running_loop()
    told = getattr(sys.flags, "thread_inherit_context", False)  # every thread, as on free-threaded builds
    async with FakeModel():
        for how in ("to_thread", "default", "own", *(["submit"] if told else [])):
            with pytest.raises(
                WrongPlace, match=r"step 'mail_out' was called in a thread .* await it in the flow"
            ):
                await calls_from_a_thread(how)
        if not told:
            assert await calls_from_a_thread("submit") == "x"  # nothing tells it where it is
        assert await has_it_called() == "x"  # part of what is recorded whole
        with ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, lambda: asyncio.run(mail_out("x"))) == "x"  # of no run
    assert "run_in_executor" not in vars(loop)


class Elsewhere(Executor):
    """As one of processes: what it is given is all that goes there."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.given.append((fn, args))
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


async def test_no_context_goes_to_another_process() -> None:
    elsewhere = Elsewhere()

    @segue.flow(name="misuse.elsewhere")
    async def flow() -> str:
        return await asyncio.get_running_loop().run_in_executor(elsewhere, str, 5)

    async with FakeModel():
        assert await flow() == "5"
    assert set(elsewhere.given) == {(str, (5,))}


async def test_engines_on_one_loop_hand_on_what_a_thread_is_to_know() -> None:
    loop = asyncio.get_running_loop()
    first, second = segue.Engine(), segue.Engine()
    async with first:
        await second.__aenter__()
        with pytest.raises(WrongPlace):
            await first.run(calls_from_a_thread("own"))
        await second.__aexit__(None, None, None)
        with pytest.raises(WrongPlace):
            await first.run(calls_from_a_thread("own"))
    assert "run_in_executor" not in vars(loop)


class Plain(segue.Actor[None]):
    def begin(self) -> str:
        return "go"

    @segue.state
    def go(self, _: str) -> segue.Done[None]:
        segue.now()
        return segue.Done()


async def test_a_plain_handler_that_calls_segue_is_told_the_cure() -> None:
    async with segue.Engine() as engine:
        with pytest.raises(WrongPlace, match=r"inside the handler Plain.go\(\), .* make it an `async def`"):
            await engine.run(Plain())


@segue.flow
async def says_text() -> int:
    return "text"  # type: ignore[return-value]  # that it is told of is tested


@segue.step
async def double(n: int) -> int:
    return 2 * n


@segue.flow
async def doubles(n: int) -> int:
    return await double(n)


class Add(segue.Note):
    n: int


class Adder(segue.Actor[int]):
    async def begin(self) -> segue.Listen:
        return segue.Listen()

    @segue.on
    async def add(self, message: Add) -> segue.Done[int]:
        return segue.Done(message.n)


async def test_a_value_that_doesnt_fit_is_told_with_its_place() -> None:
    async with segue.Engine() as engine:
        with pytest.raises(
            InvalidValue, match=r"^the result of flow 'says_text': expected int: it is a string"
        ):
            await engine.run(says_text())
        assert await engine.run(doubles(2), id="doubles") == 4
        fork = await engine.fork("doubles", edit={"#0": "four"})
        with pytest.raises(InvalidValue, match=r"^the result of step 'double': expected int: it is a string"):
            await fork
        adder = await engine.start(Adder(), id="adder")
        await engine.tell("adder", "Add", b'{"n":"two"}')
        while not (dead := await engine.dead_letters(run=adder.id)):
            await asyncio.sleep(0.001)
        assert dead[0].error is not None
        assert dead[0].error.message.startswith("what Adder.add takes: expected Add: .n is a string")


@segue.flow
async def waits() -> str:
    return await segue.ask("Go on?")


async def test_an_engine_that_isnt_open_or_open_elsewhere() -> None:
    engine = segue.Engine()
    run: segue.Run[Any] | None = None
    for _ in range(2):  # before, and after
        with pytest.raises(RuntimeError, match=r"isn't open: use it inside"):
            await engine.run(doubles(2))
        with pytest.raises(RuntimeError, match=r"isn't open: use it inside"):
            engine.map(doubles, [2])
        with pytest.raises(RuntimeError, match=r"isn't open: use it inside"):
            await engine.get("a run")
        if run is not None:
            with pytest.raises(RuntimeError, match=r"isn't open: use it inside"):
                await run.tell("what it can't hear")
            with pytest.raises(RuntimeError, match=r"isn't open: use it inside"):
                await run
        async with engine:
            with pytest.raises(RuntimeError, match="open already"):
                await engine.__aenter__()
            with pytest.raises(RuntimeError, match=r"open on another event loop.*run_coroutine_threadsafe"):
                await asyncio.to_thread(lambda: asyncio.run(engine.run(doubles(2))))
            run = await engine.start(waits())
            async for ask in engine.asks():
                await ask.answer("yes")
                break
            assert await asyncio.wait_for(run, 5) == "yes"


async def test_an_engine_doesnt_start_runs_in_the_code_of_one() -> None:
    @segue.flow
    async def starts(how: str) -> Any:
        if how == "map":
            return await engine.map(doubles, [1])
        return await (engine.run if how == "run" else engine.start)(doubles(1))

    @segue.step
    async def starts_in_a_step() -> int:
        return await engine.run(doubles(4))

    async with segue.Engine() as engine:
        for how in ("run", "start", "map"):
            with pytest.raises(WrongPlace, match=r"each wake of which.*segue\.spawn\(\)"):
                await engine.run(starts(how))
        assert len(await engine.store.runs()) == 3
        assert await engine.run(starts_in_a_step()) == 8


async def test_what_an_engine_doesnt_take() -> None:
    with pytest.raises(InvalidValue, match=r"the store of an engine: .*'sqlite:runs.db'.* 5"):
        segue.Engine(5)  # type: ignore[arg-type]
    async with segue.Engine() as engine:
        with pytest.raises(InvalidValue, match=r"the id of a run: .* 5"):
            await engine.run(doubles(1), id=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"takes a flow, .* not the call <call of flow doubles>"):
            engine.map(doubles(1), [1])  # type: ignore[arg-type]
        with pytest.raises(segue.errors.UnknownName, match=r"a function with a name, and decorate it"):
            engine.map(lambda x: doubles(x), [1])


async def test_a_runs_address_is_copied_and_not_pickled() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(waits(), id="it")
        assert copy.deepcopy({"run": run})["run"] is run
        assert copy.copy(run) is run
        with pytest.raises(TypeError, match=r"isn't pickled: hand on its id"):
            pickle.dumps(run)


class Tick(segue.Note):
    n: int = 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: segue.flow(version=3), r"version of flow\(\): .*a text.* an int"),
        (lambda: segue.flow(name=3), r"name of flow\(\): .*a text"),
        (lambda: segue.step(name=3)(print), r"name of step\(\): .*a text"),
        (lambda: segue.using(tags={"customer": 42}).__enter__(), r"tags: .*tags={'customer': '42'}.* 42"),
        (lambda: segue.using(tags={1: "a"}).__enter__(), "tags: .*texts by name"),
        (lambda: segue.using(reuse="7d").__enter__(), r"reuse: .*timedelta\(days=7\).*'7d'"),
        (lambda: segue.using(model=5).__enter__(), "model: .*'openai:gpt-5-mini', or a list.* 5"),
        (lambda: segue.using(priority="high").__enter__(), r"an option of using\(\): .*priority is a string"),
        (lambda: segue.using(priority=2**70).__enter__(), "priority: expected a whole number of 31 bits"),
        (lambda: segue.using(upkeep="Trim").__enter__(), r"an option of using\(\): .*upkeep is a string"),
        (lambda: segue.using(budget=5).__enter__(), r"budget: .*Budget\(usd=5\)"),
    ],
)
def test_what_a_record_cant_hold(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(InvalidValue, match=told):
        make()


def test_a_budget_is_of_numbers() -> None:
    for given in ({"usd": "5"}, {"tokens": 1.5}):
        with pytest.raises(ValueError, match="usd of a budget is a number and tokens a whole one"):
            segue.Budget(**given)


async def test_wrong_options_leave_a_store_as_it_was(tmp_path: Path) -> None:
    @segue.flow(name="misuse.wrong")
    async def wrong(how: str) -> Any:
        if how == "to":
            return await segue.ask("Go on?", to=3)  # type: ignore[call-overload]
        if how == "question":
            return await segue.ask(3)  # type: ignore[call-overload]
        return await segue.tell(segue.me(), Tick(), key=5)  # type: ignore[arg-type]

    async with segue.Engine(f"sqlite:{tmp_path / 'runs.db'}") as engine:
        run = await engine.start(waits(), id="it")
        for how in ("to", "question", "key"):
            with pytest.raises(InvalidValue, match="a text: it is an int"):
                await engine.run(wrong(how))
        with pytest.raises(InvalidValue, match=r"key of tell\(\)"):
            await run.tell(Tick(), key=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"key of unschedule\(\)"):
            await run.unschedule(5)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"limit of map\(\): .*whole number"):
            engine.map(waits, [1], limit="2")  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"id of map\(\)"):
            engine.map(waits, [1], id=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="tags: "):
            await engine.start(waits(), tags={"customer": 42})  # type: ignore[dict-item]
        assert [head.status for head in await engine.store.runs()] == ["parked", *["failed"] * 3]
        assert [question.run for question in await engine.store.asks()] == ["it"]


@pytest.mark.parametrize("texts", ["abc", ["a", 3]])
async def test_a_text_in_place_of_texts_is_no_list_of_letters(texts: Any) -> None:
    @segue.flow
    async def vectors() -> int:
        return len(await segue.embed(texts))

    async with FakeModel():
        with pytest.raises(
            InvalidValue, match=r"the texts of embed\(\): expected a list of texts, such as \[text\]"
        ):
            await vectors()
