"""Asking a model: text or any type, with tools, repairs and fall-backs; each turn one recorded call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, get_args, get_origin, overload

import msgspec

from ..core.codec import digest, encode
from ..core.forms import short
from ..core.shape import Shape
from ..model import checks
from ..model.chat import Answer, ChatReply, ChatRequest, File, Message, Stop, Tokens, as_messages
from ..model.errors import (
    BadAnswer,
    CheckFailed,
    InvalidValue,
    ModelFailed,
    Refused,
    TooManyTurns,
    Truncated,
)
from ..model.mode import Config, ModeLike
from ..model.upkeep import Summarise, Upkeep
from .config import ModelLike, as_config, config_of
from .context import Branch, Work, current
from .tool import Tool, as_tools, call_tool
from .upkeep import Keeper

if TYPE_CHECKING:
    from typing_extensions import TypeForm, Unpack

T = TypeVar("T")
#: A call of `embed` holds at most so many.
MOST_TEXTS = 2048
Prompt = str | File | Sequence[Message | str | File]


class Reply(Generic[T]):
    """A model's answer with all that came with it; `returns=Reply[T]` asks for it.

    `messages` is the conversation that led to it, the answer included; `tokens` are summed over its turns.
    `stop` says why the model stopped: a text that was cut off (`length`) or declined (`refusal`, `filter`) is given
    as it is, where plain `generate` raises. `citations` say where it comes from, `reasoning` what the model
    thought, as far as its provider shows it. `reused`: all of it was paid before, for the same requests.
    """

    def __init__(
        self, value: T, messages: list[Message], tokens: Tokens, last: ChatReply, *, reused: bool = False
    ) -> None:
        self.value = value
        self.messages = messages
        self.tokens = tokens
        self.text = last.text
        self.model = last.model
        self.reasoning = last.reasoning
        self.stop: Stop = last.stop
        self.citations = last.citations
        self.reused = reused

    def __repr__(self) -> str:
        return f"Reply({self.value!r}, model={self.model!r}, stop={self.stop!r})"


Reasoning = Literal["none", "low", "medium", "high"]
_REASONING: tuple[str, ...] = get_args(Reasoning)


class Options(TypedDict, total=False):
    """Options of `generate`.

    `max_turns` bounds a tool loop (default 10); `repairs` how often an unfit answer is sent back (2);
    `check` gets the typed answer and raises `ValueError` or `AssertionError`, or gives False, where it isn't fit;
    `extra` goes into the
    provider's request body as it is; `upkeep` says what becomes of a conversation that nears the model's window;
    `deadline`: each turn goes the cheapest way that is answered so soon; `reuse`: a turn whose request was answered
    before, in whatever run, gets that answer, if it is no older than a `timedelta` that is given.
    """

    system: str
    model: ModelLike
    tools: Sequence[Callable[..., Any] | Tool]
    max_turns: int
    repairs: int
    check: Callable[[Any], object]
    temperature: float
    max_tokens: int
    reasoning: Reasoning
    mode: ModeLike
    upkeep: Upkeep
    deadline: timedelta
    reuse: bool | timedelta
    extra: Mapping[str, Any]


@overload
async def generate(prompt: Prompt, /, **options: Unpack[Options]) -> str: ...
@overload
async def generate(prompt: Prompt, /, *, returns: TypeForm[T], **options: Unpack[Options]) -> T: ...
async def generate(prompt: Prompt, /, *, returns: Any = str, **options: Any) -> Any:
    """Ask a model.

    `prompt` is a text, or messages, texts and files. `returns` may be any type: the model is given its JSON
    schema, and its answer is read, validated and, where unfit, sent back with the problem, up to
    `repairs` times. With `tools`, the model may call them, in parallel, for up to `max_turns` turns.
    `model` is a name, a role, or several, the later ones being fall-backs. Raises `ModelFailed` (and of it
    `ContextOverflow`, for a conversation that is too long), `BadAnswer` (and of it `Truncated` and `Refused`),
    `TooManyTurns`, `CheckFailed` and, in a batch whose late calls are to fail, `DeadlineMissed`.
    """
    branch = current("generate")
    own: Config | None = None
    if options:
        checks.options("generate()", options, Options.__annotations__)
        _check(options)
        how = {name: options.pop(name) for name in _HOW if name in options}
        own = as_config(**how) if how else None
    config = config_of(branch, own)
    models = branch.run.services.models(config.model, config)
    for number, model in enumerate(models):
        try:
            return await _Talk(branch, config, model, prompt, returns, options).run()
        except ModelFailed:
            if number + 1 == len(models):
                raise
    raise AssertionError("services.models() gives at least one")


#: Options that say how the call is made, and not what is asked.
_HOW = ("mode", "model", "upkeep", "deadline", "reuse")


def _check(options: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for what can't be: a provider says so when the call is made, and others not at all."""
    for name, least in (("max_turns", 1), ("repairs", 0), ("max_tokens", 1)):
        if name in options and (options[name] is not None or name != "max_tokens"):
            checks.count(f"{name} of generate()", options[name], least)
    if options.get("temperature") is not None:
        checks.amount("temperature of generate()", options["temperature"])
    if options.get("reasoning") is not None:
        checks.one_of("reasoning of generate()", options["reasoning"], _REASONING)


class _Talk:
    """One conversation with one model, until its answer is fit."""

    def __init__(
        self,
        branch: Branch,
        config: Config,
        model: str,
        prompt: Prompt,
        returns: Any,
        options: dict[str, Any],
    ) -> None:
        self.branch, self.config, self.model = branch, config, model
        self.whole = get_origin(returns) is Reply or returns is Reply
        wanted = (get_args(returns) or (str,))[0] if self.whole else returns
        self.shape: Shape[Any] | None = None if wanted is str else Shape.of(wanted)
        system = options.get("system")
        self.messages = [*([Message("system", system)] if system else []), *as_messages(prompt)]
        self.tools = as_tools(options.get("tools", ()))
        self.check: Callable[[Any], object] | None = options.get("check")
        self.repairs: int = options.get("repairs", 2)
        self.max_turns: int = options.get("max_turns", 10)
        self.request = ChatRequest(
            messages=[],
            tools=[tool.spec for tool in self.tools.values()],
            answer=None if self.shape is None else Answer(self.shape.name, self.shape.schema),
            temperature=options.get("temperature"),
            max_tokens=options.get("max_tokens"),
            reasoning=options.get("reasoning"),
            extra=dict(options.get("extra") or {}),
        )
        self.told = 0  # messages that the journal has
        self.place = 0  # of the last turn
        self.keeper: Keeper | None = None
        if config.upkeep is not None:
            self.keeper = Keeper(config.upkeep, branch, model, self.request, self._ask)
            self.asked = self.messages[_last_question(self.messages) :]
        self.tokens = Tokens()
        self.reused = True  # so far

    async def run(self) -> Any:
        turns = 0
        while True:
            reply = await self._turn()
            turns += 1
            if reply.tool_calls and reply.stop == "tool":
                if turns >= self.max_turns:
                    raise TooManyTurns(self.model, turns)
                await self._use_tools(reply)
                continue
            value, problem = self._judge(reply)
            if not problem:
                if not self.whole:
                    return value
                return Reply(value, self.messages, self.tokens, reply, reused=self.reused)
            cut = reply.stop == "length"
            if self.repairs <= 0 or (cut and (self.shape is None or reply.tool_calls)):
                raise (Truncated if cut else BadAnswer)(self.model, problem, reply.text)
            self.repairs -= 1
            how = "more briefly" if cut else "in full"
            self.messages.append(
                Message("user", f"That answer can't be used: {problem}\nAnswer again, {how}.")
            )

    async def _turn(self) -> ChatReply:
        """One recorded call. The first holds all that the author said; later ones what was added since."""
        if self.keeper is not None:
            kept = await self.keeper.kept(self.messages, self.asked)
            if kept is not self.messages:
                self.messages, self.told = kept, 0
        added = self.messages[self.told :]
        base: Any = {"after": self.place} if self.told else {"model": self.model, "request": self.request}
        args = encode({**base, "messages": added}, where="the prompt of generate()")
        request = msgspec.structs.replace(self.request, messages=list(self.messages))
        call = self.branch.run.services.model_call(
            self.branch, self.config, self.model, request, args, digest(args)
        )
        run, self.place = self.branch.run, self.branch.n
        made = run.perform(self.branch, call) if isinstance(call, Work) else run.record(self.branch, call)
        reply: ChatReply = await made
        self.messages.append(Message("assistant", reply.text, reply.tool_calls, opaque=reply.opaque))
        self.told = len(self.messages)
        self.tokens += reply.tokens
        self.reused = self.reused and reply.reused
        return reply

    async def _ask(self, system: str, text: str) -> str:
        """Have a summary written."""
        config, policy = self.config, self.config.upkeep
        model = self.model
        if isinstance(policy, Summarise) and policy.model:
            model = self.branch.run.services.models((policy.model,), config)[0]
        plain = msgspec.structs.replace(config, upkeep=None)
        talk = _Talk(self.branch, plain, model, text, str, {"system": system})
        summary: str = await talk.run()
        self.tokens += talk.tokens
        self.reused = self.reused and talk.reused
        return summary

    async def _use_tools(self, reply: ChatReply) -> None:
        results = await asyncio.gather(*(call_tool(self.tools, call) for call in reply.tool_calls))
        for call, result in zip(reply.tool_calls, results, strict=True):
            self.messages.append(Message("tool", result, call=call.id))

    def _judge(self, reply: ChatReply) -> tuple[Any, str]:
        """The value of an answer, or what is wrong with it."""
        if self.whole and self.shape is None and reply.stop != "end":
            return reply.text, ""  # who asks for the reply looks at `stop`
        if reply.stop in ("refusal", "filter"):
            who = "the model declined" if reply.stop == "refusal" else "a filter stopped it"
            raise Refused(self.model, f"{who} ({reply.stop})", reply.text)
        if reply.stop == "length":
            return None, "it was cut off at its length limit."
        value: Any = reply.text
        if self.shape is not None:
            try:
                value = self.shape.decode(reply.text)
            except InvalidValue as error:
                return None, f"{error}."
        if self.check is not None and (problem := _verdict(self.check, value)):
            return None, problem
        return value, ""


def _verdict(check: Callable[[Any], object], value: object) -> str:
    """What a check has against an answer. Raises `CheckFailed` where it fails itself: to ask again mends no code."""
    try:
        verdict = check(value)
        if inspect.iscoroutine(verdict):
            verdict.close()
            raise TypeError("it is async, and a check is called, not awaited: await it after generate()")
        if verdict is not None and not isinstance(verdict, bool):
            raise TypeError(f"it gave {verdict!r}: raise what is wrong, as in `raise ValueError('above 60')`")
    except (ValueError, AssertionError) as error:
        return str(error) or type(error).__name__
    except Exception as error:
        raise CheckFailed(f"{type(error).__name__}: {error}") from error
    return "it didn't pass the check of the one who asked" if verdict is False else ""


def _last_question(messages: list[Message]) -> int:
    """Where the last messages of the user begin that stand side by side."""
    number = next((n for n in reversed(range(len(messages))) if messages[n].role == "user"), len(messages))
    while number > 0 and messages[number - 1].role == "user":
        number -= 1
    return number


async def embed(
    texts: Sequence[str],
    /,
    *,
    model: ModelLike = (),
    mode: ModeLike | None = None,
    reuse: bool | timedelta | None = None,
) -> list[list[float]]:
    """Vectors for texts, in their order; one recorded call for each 2,048 texts, which is what providers take.

    Raises `ModelFailed`.
    """
    branch = current("embed")
    if isinstance(texts, str) or not all(
        isinstance(each, str) for each in texts
    ):  # a text is a sequence of texts
        problem = "it is a text" if isinstance(texts, str) else "it holds other things too"
        raise InvalidValue(
            "the texts of embed()", "a list of texts, such as [text]", problem, short(repr(texts))
        )
    config = config_of(branch, as_config(mode, model, reuse=reuse))
    chosen = branch.run.services.models(config.model, config)[0]
    made = []
    for start in range(0, len(texts), MOST_TEXTS):
        some = list(texts[start : start + MOST_TEXTS])
        args = encode({"model": chosen, "texts": some}, where="the texts of embed()")
        call = branch.run.services.model_call(branch, config, chosen, some, args, digest(args))
        made.append((branch.run.record(branch, call), len(some)))
    vectors: list[list[float]] = []
    for reply, count in made:
        told = (await reply).vectors
        if len(told) != count:
            raise ModelFailed(chosen, 200, f"it gave {len(told)} vectors for {count} texts", "bad_body")
        vectors += told
    return vectors
