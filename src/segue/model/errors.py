"""Every error segue raises on purpose.

One root, three families by who must act::

    SegueError
    ├── AuthorError      the code of a flow, step or actor must change
    ├── CallerError      what was asked for can't be had as asked
    └── OperatorError    a store, a provider or a machine needs a hand

Errors hold data and build their own text; the text names what, where and the cure.
"""

from __future__ import annotations

import shlex
from typing import Final

import msgspec

#: What decoding raises: of what is none, or of another shape, and of text that is no UTF-8.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)

#: What most often makes a replay differ, and the cures.
OUTSIDE: Final = (
    "A clock, chance or state outside the run? Use segue.now(), segue.uuid() or segue.random, and keep state in the "
    "flow."
)


class SegueError(Exception):
    """The root of all errors that segue raises on purpose."""


class AuthorError(SegueError):
    """The code of a flow, step, tool or actor must change."""


class CallerError(SegueError):
    """What was asked for can't be had as it was asked."""


class OperatorError(SegueError):
    """A store, a provider or a machine needs a hand."""


# ---------------------------------------------------------------- authors
def called(verb: str) -> str:
    """What was called, as its author wrote it: a verb of segue's, or something else in its own words."""
    return f"segue.{verb}()" if verb.isidentifier() else verb


class NotInRun(AuthorError):
    """A `segue.` verb was called where there is no run."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        super().__init__(
            f"{called(verb)} was called outside a run; call it from a flow that an engine runs "
            f"(`await engine.run(my_flow(...))`), or in a test under `async with FakeModel():`. A thread or an "
            f"executor of your own doesn't know the run: call it before, and hand on what it gives"
        )


class NotEncodable(AuthorError):
    """A value can't be written to a journal, so it was refused where it was made."""

    def __init__(self, where: str, path: str, value_type: str, hint: str = "") -> None:
        self.where, self.path, self.value_type, self.hint = where, path, value_type, hint
        text = f"{where} can't be recorded: {path or 'the value'} is {value_type}, which JSON can't carry"
        super().__init__(f"{text}; {hint}" if hint else text)


class BadSignature(AuthorError):
    """A function's signature can't be turned into a schema or bound to stored arguments."""

    def __init__(self, function: str, problem: str, cure: str) -> None:
        self.function, self.problem, self.cure = function, problem, cure
        super().__init__(f"{function}: {problem}; {cure}")


class ReplayMismatch(AuthorError):
    """The code no longer does what its journal says it did; the run is held and nothing is paid again."""

    def __init__(
        self,
        run: str,
        path: str,
        n: int,
        recorded: str,
        asked: str,
        difference: str,
        *,
        cure: str | None = None,
    ) -> None:
        self.run, self.path, self.n = run, path, n
        self.recorded, self.asked, self.difference = recorded, asked, difference
        if cure is None:
            cure = (
                f"Restore the code, or `segue resume {shlex.quote(run)} --keep` to accept what was paid for, "
                f"or `--rerun` to call anew what changed."
            )
        what = "isn't as recorded" if asked == recorded else f"was {recorded} and is now {asked}"
        named = f", {recorded}," if asked == recorded else ""
        text = f"run {run!r}: call {n} of branch {path or '/'!r}{named} {what}. {difference}"
        super().__init__(f"{text} {cure}" if cure else text)

    @property
    def cause(self) -> str:
        """What differs, in words that are the same for all runs of the same code."""
        if self.asked == "not made":
            return f"The code no longer makes a recorded call: {self.recorded}."
        if self.asked == self.recorded:
            return f"A recorded call has other arguments now: {self.recorded}."
        return f"A recorded call is another one now: it was {self.recorded} and is {self.asked}."


class CheckFailed(AuthorError):
    """The `check=` of a `generate` raised what isn't a verdict on the answer; `error` is what, by name and text."""

    def __init__(self, error: str) -> None:
        self.error = error
        super().__init__(
            f"the check of generate() raised {error}; that is no verdict on the answer: a check turns one down with "
            f"ValueError, AssertionError or False. Mend it; the answer is kept, and a resumed run checks it again"
        )


class StateMismatch(AuthorError):
    """What is stored of an actor doesn't fit its class any more; the run is held and nothing stored is changed."""

    def __init__(self, run: str, actor: str, problem: str) -> None:
        self.run, self.actor, self.problem = run, actor, problem
        super().__init__(
            f"run {run!r}: what is stored of it doesn't fit {actor}: {problem}. Nothing stored was changed. "
            f"Restore the class, or give it a `migrate(cls, old)`; then `segue resume {shlex.quote(run)}`."
        )

    @property
    def cause(self) -> str:
        """What differs, in words that are the same for all runs of the same code."""
        return f"What is stored doesn't fit {self.actor}: {self.problem}"


class InputMismatch(AuthorError):
    """What a run was started with doesn't fit its flow any more; the run is held."""

    def __init__(self, run: str, flow: str, problem: str) -> None:
        self.run, self.flow, self.problem = run, flow, problem
        super().__init__(
            f"run {run!r}: {problem}. Restore the parameters of {flow}, or give new ones a default; then "
            f"`segue resume {shlex.quote(run)} --keep`."
        )

    @property
    def cause(self) -> str:
        """What differs, in words that are the same for all runs of the same code."""
        return f"What it was started with doesn't fit flow {self.flow!r} any more: {self.problem}"


class ResultMismatch(AuthorError):
    """A finished run gives another result when it is replayed, although its calls are the same."""

    def __init__(self, run: str, recorded: str, replayed: str) -> None:
        self.run, self.recorded, self.replayed = run, recorded, replayed
        super().__init__(
            f"run {run!r} ended with {recorded[:300]} and, replayed, with {replayed[:300]}. {OUTSIDE}"
        )


class WrongPlace(AuthorError):
    """A verb was called where it can't be recorded, such as a model call in a step of a batch run."""


class Deadlock(AuthorError):
    """A request would wait for an actor that waits, directly or not, for the one that asks."""


# ---------------------------------------------------------------- callers
class InvalidValue(CallerError):
    """A value isn't of the type asked for."""

    def __init__(self, where: str, expected: str, problem: str, got: str = "") -> None:
        self.where, self.expected, self.problem, self.got = where, expected, problem, got
        text = f"{where}: expected {expected}: {problem}"
        super().__init__(f"{text}; got {got}" if got else text)


class UnknownName(CallerError):
    """A flow, model, provider, run, ask or store by that name isn't there."""

    def __init__(self, kind: str, name: str, cure: str) -> None:
        self.kind, self.name, self.cure = kind, name, cure
        super().__init__(f"there is no {kind} {name!r}; {cure}" if name else f"no {kind} is named; {cure}")


class AskClosed(CallerError):
    """The ask was answered already, timed out, or its run has ended."""

    def __init__(self, ask: str, why: str) -> None:
        self.ask, self.why = ask, why
        super().__init__(f"ask {ask!r} takes no answer any more: {why}")


class RunFailed(CallerError):
    """A run ended with an error that can't be raised here as it was."""

    def __init__(self, run: str, type: str, message: str) -> None:
        self.run, self.type, self.message = run, type, message
        super().__init__(f"run {run!r} failed with {type}: {message}")


class RunCancelled(CallerError):
    """A run was cancelled."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(f"run {run!r} was cancelled")


class RunInterrupted(RunCancelled):
    """An actor ended because it was asked to."""

    def __init__(self, run: str) -> None:
        self.run = run
        CallerError.__init__(self, f"run {run!r} was interrupted")


class RunEnded(CallerError):
    """A run ended without answering, or before it was asked."""

    def __init__(self, run: str, status: str) -> None:
        self.run, self.status = run, status
        super().__init__(f"run {run!r} answers no more: it is {status}")


class Restarted(CallerError):
    """A run began anew, under its supervisor, before it answered: what it had kept in its fields is gone."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(
            f"run {run!r} began anew before it answered, and no longer has what it was asked: ask again"
        )


class MailboxFull(CallerError):
    """A run's mailbox is full, and refuses what comes then. `size` is the number of messages that it holds."""

    def __init__(self, run: str, size: int) -> None:
        self.run, self.size = run, size
        super().__init__(
            f"the mailbox of run {run!r} is full ({size} messages): send again later; outside runs, `tell` "
            f'waits for room with mailbox = segue.Mailbox({size}, full="wait")'
        )


class RunHeld(CallerError):
    """A run waits for a person's decision and won't go on by itself."""

    def __init__(self, run: str, reason: str) -> None:
        self.run, self.reason = run, reason
        super().__init__(f"run {run!r} is held: {reason}")


class Unpriced(CallerError):
    """A budget in money is to hold for a model whose price isn't known."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"{self.cause}; give a budget in tokens, Budget(tokens=…) or --budget 100ktok, or tell its price: "
            "Engine(prices=…)"
        )

    @property
    def cause(self) -> str:
        """What is missing."""
        return f"no price of model {self.model!r} is known, so a budget in US dollars can't hold for it"


class StepFailed(CallerError):
    """A step failed with an error whose class can't be built from its record here."""

    def __init__(self, type: str, message: str) -> None:
        self.type, self.message = type, message
        super().__init__(f"{type}: {message}")


class Conflict(CallerError):
    """An id is taken by something else, such as a row of a job whose input changed."""


class ModelFailed(CallerError):
    """A model call failed for good. `status` is the HTTP status, 0 where there was none."""

    def __init__(self, model: str, status: int, message: str, code: str = "") -> None:
        self.model, self.status, self.message, self.code = model, status, message, code
        at = f" (HTTP {status}{f', {code}' if code else ''})" if status or code else ""
        super().__init__(f"model {model!r} failed{at}: {message}")


class StreamCut(ModelFailed):
    """A live answer broke off after the code had read some of it; its SDK raises an own error. `frames`: what came."""

    def __init__(self, model: str, status: int, message: str, frames: list[str]) -> None:
        super().__init__(model, status, message, "stream_cut")
        self.frames = frames


class DeadlineMissed(CallerError):
    """A model call of `Batch(late="fail")` wasn't answered in time. `lane` is where it waited, `lateness` in words."""

    def __init__(self, model: str, lane: str, lateness: str) -> None:
        self.model, self.lane, self.lateness = model, lane, lateness
        super().__init__(
            f"model {model!r} gave no answer in time: the call waited in lane {lane!r}, and {lateness}; "
            f"give it longer (deadline=, or within= of segue.Batch), or have late calls sent live: late='live'"
        )


class ContextOverflow(ModelFailed):
    """A conversation is longer than the model reads. Its cure is a shorter one, or a model that reads more."""


class BadAnswer(CallerError):
    """A model's answer stayed unfit after all repairs; `answer` is the last one."""

    cure = ""

    def __init__(self, model: str, problem: str, answer: str) -> None:
        self.model, self.problem, self.answer = model, problem, answer
        text = (
            f"model {model!r} gave no fit answer: {problem.removesuffix('.')}; its last was {answer[:400]!r}"
        )
        super().__init__(f"{text}; {self.cure}" if self.cure else text)


class Truncated(BadAnswer):
    """An answer was cut off at its length limit. `answer` is what there is of it."""

    cure = "raise max_tokens=, ask for less, or take what there is with returns=segue.Reply[str]"


class Refused(BadAnswer):
    """A model, or a filter of its provider, declined to answer; `answer` is what it said to that, if anything."""


class TooManyTurns(CallerError):
    """A tool loop reached `max_turns` without a final answer."""

    def __init__(self, model: str, turns: int) -> None:
        self.model, self.turns = model, turns
        super().__init__(
            f"model {model!r} still called tools after {turns} turns; raise max_turns= or give it fewer tools"
        )


# ---------------------------------------------------------------- operators
class StoreError(OperatorError):
    """A store can't do its work. `store` is its address."""

    def __init__(self, store: str, problem: str, cure: str) -> None:
        self.store, self.problem, self.cure = store, problem, cure
        super().__init__(f"store {store!r}: {problem}; {cure}")


class Damaged(OperatorError):
    """What a store has of something can't be read: `what` it is, and the `problem`."""

    def __init__(self, what: str, problem: object) -> None:
        self.what, self.problem = what, str(problem)
        super().__init__(
            f"{what} can't be read ({problem}): the store is damaged there, or a newer segue wrote it; "
            f"restore a backup, or upgrade segue here"
        )


class ProviderFault(OperatorError):
    """A provider's API answered something that its protocol doesn't know. `body` is shortened."""

    def __init__(self, provider: str, what: str, body: str = "", status: int = 0) -> None:
        self.provider, self.what, self.body, self.status = provider, what, body[:300], status
        shown = f"; it said {self.body!r}" if body else ""
        super().__init__(f"{provider}: {what}{f' (HTTP {status})' if status else ''}{shown}")


class ProcessDied(OperatorError):
    """The process of a `pool="process"` call ended in its middle. `code`: minus the signal, if it was one."""

    def __init__(self, call: str, code: int) -> None:
        self.call, self.code = call, code
        how = f"was ended by signal {-code}" if code < 0 else f"ended by itself, with exit code {code}"
        super().__init__(
            f"the process that carried out {call!r} {how} (9: the system was out of memory, or somebody killed it; "
            f"11: a crash in C code); nothing else was harmed, and retry= has such work done again"
        )


class MissingKey(OperatorError):
    """The environment has no key (or no `what` else) for a provider. `variable` is where it is looked for."""

    def __init__(self, provider: str, variable: str, what: str = "key") -> None:
        self.provider, self.variable, self.what = provider, variable, what
        super().__init__(f"{provider} needs a {what}: set the environment variable {variable}")


class MissingExtra(OperatorError):
    """An optional dependency isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} isn't installed; `pip install 'segue[{extra}]'`")
