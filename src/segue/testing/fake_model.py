"""A model for authors' tests: says what it was told to say, and answers questions in a person's place."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections.abc import AsyncIterator, Callable
from contextvars import Token
from typing import Any, Self

import msgspec

from ..authoring.flow import RUNNER, FlowCall, Runner, definition, short_name
from ..authoring.tool import is_decision
from ..core import journal
from ..core.codec import encode
from ..model import checks
from ..model.chat import Answer, ChatReply, Message, ToolCall, ToolSpec
from ..model.errors import AskClosed, ModelFailed, RunHeld, WrongPlace
from ..model.run import Head
from ..ports.provider import CallFault, Endpoint, Environment, Provider
from ..ports.store import Store
from ..ports.transport import Transport
from ..runtime.calls.live import CALLING
from ..runtime.engine import Engine
from ..runtime.handles import Ask, Run
from ..runtime.stuck import held_beneath
from .clock import VirtualClock
from .fake_provider import Body, FakeProvider, Remote, tokens, vector


class ToolUse:
    """A reply in which the model calls a tool: `reply(ToolUse("search", query="x"))`; a list of them is one reply."""

    def __init__(self, name: str, /, **arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class ModelCall(msgspec.Struct, frozen=True):
    """A request that a fake model saw. `answer` is the form in which an answer is wanted, None for text."""

    model: str
    messages: list[Message]
    tools: list[ToolSpec] = []
    answer: Answer | None = None

    @property
    def text(self) -> str:
        """All its texts, a line each."""
        return "\n".join(self.texts())

    def texts(self) -> list[str]:
        """The texts of its messages."""
        out: list[str] = []
        for message in self.messages:
            parts = [message.content] if isinstance(message.content, str) else message.content
            out += [part for part in parts if isinstance(part, str) and part]
        return out


class Unexpected(AssertionError):
    """A test met a model call or a question that nobody told it the answer to."""


class Rule:
    """What the model says to calls whose text contains `contains`."""

    def __init__(self, contains: str, model: str) -> None:
        self.contains, self.model = contains, model
        self.values: list[object] = []
        self.given = 0

    def fits(self, call: ModelCall) -> bool:
        """Whether it is for that call."""
        named = not self.model or self.model in (call.model, call.model.partition(":")[2])
        return bool(self.values) and named and any(self.contains in text for text in call.texts())

    def next(self) -> object:
        """The next value; the last one repeats."""
        value = self.values[min(self.given, len(self.values) - 1)]
        self.given += 1
        return value


class FakeModel:
    """Stands for every model, and for the people who are asked, in a test.

    `async with model:` runs flows that are awaited in the block, in memory, without network or waiting:
    durable waits and retries take no time. Each finished run is replayed once, and a difference is raised.
    A model call that no `when` fits, or a question without an `answer`, fails the test and prints itself.
    """

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []
        self.clock = VirtualClock()
        self.remote = Remote()
        self.rules: list[Rule] = []
        self._rule = Rule("", "")
        self._answers: dict[str, object] = {}
        self._said: dict[str, list[object]] = {}  # by call: one that is made again hears the same
        self._heard: dict[str, int] = {}
        self._failure: Unexpected | None = None
        self._failed: Future[None] | None = None
        self._undo: list[Callable[[], Any]] = []
        self._runs = 0
        self._told = False

    # ------------------------------------------------------------ what it is told
    def when(self, contains: str, /, *, model: str = "") -> FakeModel:
        """Begin a rule for calls with that text in one of their messages. The longest text that is found wins."""
        checks.text("the text of when()", contains)
        self._rule = Rule(contains, model)
        self.rules.append(self._rule)
        return self

    def reply(self, *values: object) -> FakeModel:
        """What the model says, in order; the last one repeats.

        A text, any typed value (as JSON), a `ToolUse` or a list of them, an error for a call that fails, or
        a function that makes one of these of a `ModelCall`.
        """
        if not self.rules:
            raise TypeError("reply() belongs to a when(): model.when('Classify').reply(…)")
        self._rule.values += values
        return self

    def answer(self, question: str, value: object, /) -> FakeModel:
        """What is answered to questions with that text; the longest text that is found wins."""
        self._answers.pop(question, None)
        self._answers[question] = value
        return self

    # ------------------------------------------------------------ a test
    async def __aenter__(self) -> Self:
        self._failure, self._told = None, False
        self._failed = asyncio.get_running_loop().create_future()
        engine = self.engine = FakeEngine(self, "memory:", verify=True)
        await engine.__aenter__()
        token: Token[Runner | None] = RUNNER.set(self)
        answering = asyncio.create_task(self.keep_answering(engine))
        self._undo = [lambda: _reset(token), answering.cancel]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for undo in self._undo:
            undo()
        if self._failed is not None:
            self._failed.cancel()
        await self.engine.__aexit__(*exc)
        if self._failure is not None and not self._told and exc[0] is None:
            raise self._failure

    async def run_flow(self, call: Any) -> Any:
        """Run a flow or an actor that a test awaits."""
        self._runs += 1
        name = short_name(call.flow if isinstance(call, FlowCall) else definition(type(call)))
        run = await self.engine.start(call, id=f"{name}-{self._runs}")
        return await self.or_unexpected(self.engine.result(run.id))

    async def or_unexpected(self, work: Any) -> Any:
        """Its result, unless something unexpected comes first."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        ending = asyncio.ensure_future(work)
        try:
            await asyncio.wait({ending, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            return await ending
        finally:
            ending.cancel()

    def check(self) -> None:
        """Raise what was unexpected, if anything was."""
        if self._failure is not None:
            self._told = True
            raise self._failure

    def fail(self, text: str) -> None:
        """Something was unexpected: the test fails."""
        if self._failure is None:
            self._failure = Unexpected(text)
            if (engine := vars(self).get("engine")) is not None:  # `check` has engines of its own
                engine.broken = self._failure
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    # ------------------------------------------------------------ the model's side
    def think(self, provider: str, call: str, body: Body) -> ChatReply:
        """The reply to a chat request; see `Mind`."""
        assert body.request is not None  # a chat request
        asked = ModelCall(
            f"{provider}:{body.model}", body.request.messages, body.request.tools, body.request.answer
        )
        self.calls.append(asked)
        value = self._say(call, asked)
        if isinstance(value, BaseException):
            raise as_fault(value)
        reply = as_reply(value, asked, call)
        if isinstance(value, ChatReply):
            return reply
        counted = tokens(body.request, asked.texts(), reply.text)
        return msgspec.structs.replace(reply, tokens=counted, model=asked.model)

    def _say(self, call: str, asked: ModelCall) -> object:
        """What was said to that call in another life, or else the next value of the rule that fits."""
        said = self._said.setdefault(call, [])
        heard = self._heard.get(call, 0)
        if heard >= len(said) and (not said or not call or _passing(said[-1])):
            value = self._choose(asked)
            if callable(value) and not isinstance(value, type | BaseException | ToolUse):
                value = value(asked)
            said.append(value)
        self._heard[call] = min(heard + 1, len(said))
        return said[min(heard, len(said) - 1)]

    def begin_again(self) -> None:
        """Say the same to the same calls once more, passing failures included."""
        self._heard.clear()
        self.remote = Remote()

    def _choose(self, call: ModelCall) -> object:
        fitting = [rule for rule in self.rules if rule.fits(call)]
        if not fitting:
            self.fail(unmatched(call, self.rules))
            return CallFault(400, "no when() fits this call", again=False)
        return max(reversed(fitting), key=lambda rule: len(rule.contains)).next()

    def embed(self, provider: str, call: str, body: Body) -> list[list[float]]:
        """Vectors that belong to the texts."""
        self.calls.append(ModelCall(f"{provider}:{body.model}", [Message("user", list(body.texts))]))
        return [vector(text) for text in body.texts]

    # ------------------------------------------------------------ the people's side
    async def keep_answering(self, engine: Engine) -> None:
        """Answer questions as they open."""
        waiting: set[Task[None]] = set()
        try:
            async for ask in engine.asks():
                known = [text for text in self._answers if text in ask.question]
                if not known:
                    task = asyncio.create_task(self._nobody(engine, ask))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                    continue
                try:
                    await ask.answer(self._answers[max(reversed(known), key=len)])
                except AskClosed:  # its time was up, or its run went on
                    continue
                except Exception as error:
                    self.fail(f"the answer to {ask.question!r} doesn't fit: {error}")
        finally:
            for task in waiting:
                task.cancel()

    async def _nobody(self, engine: Engine, ask: Ask) -> None:
        """A question that nobody answers fails the test once its run waits for nothing else, not even for a time."""
        while any(open_ask.id == ask.id for open_ask in await engine.open_asks(run=ask.run)):
            head = await engine.head(ask.run)
            if head.status == "parked" and head.wake is None:
                self.fail(unanswered(ask))
                return
            await asyncio.sleep(0.002)


class FakeEngine(Engine):
    """An engine on which a fake model stands for every model."""

    def __init__(self, fake: FakeModel, store: str | Store, **options: Any) -> None:
        options = {"model": "fake:model", "clock": fake.clock, "grace": 0.0, **options}  # nothing is paid
        super().__init__(store, **options)
        self._fake = fake

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if isinstance(self.clock, VirtualClock):
            self.clock.busy = self._busy
        return self

    def _resolve(self, name: str, environment: Environment) -> Endpoint:
        scheme, colon, rest = name.partition(":")
        return Endpoint(scheme, "", rest) if colon else Endpoint("fake", "", name)

    def _make(self, endpoint: Endpoint, environment: Environment) -> Provider:
        return FakeProvider(endpoint.provider, self._fake, self._fake.remote, CALLING.get)

    def _open_pool(self) -> Transport:
        raise WrongPlace(
            "a FakeModel doesn't speak HTTP, so it can't answer an SDK; test this flow on an Engine, against "
            "segue.testing.simulator"
        )

    def _busy(self, sleeping: set[Task[Any]]) -> bool:
        """Whether a run is at work, rather than waiting for the clock."""
        for executor in self.worker.awake.values():
            if executor.stirring:
                return True
            at_work = executor.carrying.at_work
            if at_work:
                if not at_work <= sleeping:
                    return True
            elif executor.nap is None:
                return True
        return False

    async def result(self, run: str) -> Any:
        """What a run gives, or raises. Raises `RunHeld` where a flow waits for a run beneath it that is held: in a test
        nobody decides there, and it would wait for ever."""
        ending = asyncio.ensure_future(_awaited(await self.get(run)))
        try:
            while True:
                some_end = self.ends.next()
                await asyncio.wait({ending, some_end}, return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    return ending.result()
                if (held := await self._held_beneath(run)) is not None:
                    raise RunHeld(run, f"it waits for run {held.id!r}, which is held: {held.reason}")
        finally:
            ending.cancel()

    async def _held_beneath(self, run: str) -> Head | None:
        """The held run without which a flow doesn't go on, if there is nothing else that it waits for."""
        head = await self.store.get(run)
        if head is None or head.status != "parked" or head.spec.kind != "flow":
            return None
        beneath = await held_beneath(self.store, _only(head))
        loaded = await self.store.load(run) if beneath else None
        if not beneath or loaded is None:
            return None
        waits = {entry.kind for entry in journal.open_calls(journal.read(loaded.journal))}
        return None if waits & {"receive", "request", "ping"} else beneath[run]


async def _awaited(run: Run[Any]) -> Any:
    return await run


async def _only(head: Head) -> AsyncIterator[Head]:
    yield head


def _reset(token: Token[Runner | None]) -> None:
    try:
        RUNNER.reset(token)
    except ValueError:  # entered in one context and left in another, as fixtures do
        RUNNER.set(None)


# ---------------------------------------------------------------- replies
def as_fault(error: BaseException) -> CallFault:
    """An error in a rule as the failing of a call."""
    if isinstance(error, CallFault):
        return error
    if isinstance(error, ModelFailed):
        return CallFault(error.status, error.message, again=False, code=error.code)
    again = isinstance(error, OSError)
    return CallFault(503 if again else 400, f"{type(error).__name__}: {error}", again=again)


def _passing(value: object) -> bool:
    return isinstance(value, BaseException) and as_fault(value).again


def as_reply(value: object, call: ModelCall, ident: str) -> ChatReply:
    """A value in a rule as the model's reply, in the form that the request asks for."""
    if isinstance(value, ChatReply):
        return value
    uses = [value] if isinstance(value, ToolUse) else value
    if isinstance(uses, list) and uses and all(isinstance(use, ToolUse) for use in uses):
        calls = [
            ToolCall(f"call_{ident[:8]}_{number}", use.name, encode(use.arguments).decode())
            for number, use in enumerate(uses)
        ]
        return ChatReply("", calls, "tool")
    inner = _wrapped(call.answer)
    if isinstance(value, str):
        if inner is not None and _takes_text(inner) and not value.lstrip().startswith("{"):
            value = encode({"value": value}).decode()
        return ChatReply(value)
    data = encode(value, where=f"the reply to a call of {call.model!r}")
    plain = msgspec.json.decode(data)
    if inner is not None and not (isinstance(plain, dict) and plain.keys() == {"value"}):
        data = encode({"value": plain})
    return ChatReply(data.decode())


def _wrapped(answer: Answer | None) -> dict[str, Any] | None:
    """The schema of the value inside `{"value": …}`, if that is the form of the answer."""
    properties = None if answer is None else answer.schema.get("properties")
    if not isinstance(properties, dict) or properties.keys() != {"value"}:
        return None
    inner: dict[str, Any] = properties["value"]
    return inner


def _takes_text(schema: dict[str, Any]) -> bool:
    parts = [schema, *schema.get("anyOf", ())]
    return any(part.get("type") == "string" or "enum" in part or "const" in part for part in parts)


# ---------------------------------------------------------------- what a failing test shows
def unmatched(call: ModelCall, rules: list[Rule]) -> str:
    """A model call that no rule fits, and the cure."""
    shown = "\n".join(f"    {message.role}: {_short(_content(message))}" for message in call.messages)
    form = (
        ""
        if call.answer is None
        else f"\n  It asks for {call.answer.name}: {_short(_json(call.answer.schema))}"
    )
    tools = "" if not call.tools else f"\n  It may call {', '.join(tool.name for tool in call.tools)}."
    known = ", ".join(map(_rule, rules)) or "no when() at all"
    said = next((text for text in reversed(call.texts())), "")
    value = "…" if call.answer is None else f"{call.answer.name}(…)"
    return (
        f"no when() fits this call of {call.model!r}:\n{shown}{form}{tools}\n"
        f"  The fake model knows {known}.\n"
        f"  Add: model.when({_begin(said)!r}).reply({value})"
    )


def _rule(rule: Rule) -> str:
    return f"when({rule.contains!r}){'' if rule.values else ', which has no reply()'}"


def unanswered(ask: Ask) -> str:
    """A question without an answer, and the cure."""
    shown = "" if ask.show is None else f"\n  It shows {_short(_json(ask.show))}"
    fit, value = f"must fit {_short(_json(ask.schema))}", "…"
    if is_decision(ask.schema):
        named = ", ".join(f"{name}=…" for name in ask.schema["properties"]["arguments"].get("properties", ()))
        fit, value = f"is segue.Approve(), segue.Edit({named}) or segue.Deny('why')", "segue.Approve()"
    return (
        f"nobody answers the question {ask.question!r} of run {ask.run!r}.{shown}\n"
        f"  The answer {fit}.\n"
        f"  Add: model.answer({ask.question!r}, {value})"
    )


def _content(message: Message) -> str:
    parts = [message.content] if isinstance(message.content, str) else message.content
    texts = [part if isinstance(part, str) else f"<{part.media}>" for part in parts]
    texts += [f"calls {call.name}({call.arguments})" for call in message.tool_calls]
    return " ".join(texts)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _begin(text: str) -> str:
    """Some first words of a text, enough to know it by."""
    line = text.strip().split("\n", 1)[0]
    return line if len(line) <= 24 else line[:24].rpartition(" ")[0] or line[:24]


def _short(text: str, width: int = 300) -> str:
    text = text.replace("\n", "\n      ")
    return text if len(text) <= width else f"{text[:width]}…"
