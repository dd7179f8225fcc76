"""The store contract: where runs live.

The store is the truth. Everything that reaches a run is mail in its inbox; everything that a run does is a
`Turn`, written whole or not at all. `segue.testing.store_contract` is the test suite of this contract.
Times are seconds since the epoch and come from the caller, so that tests need no real clock.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from ..model.budget import Amount, Limit, Reservation, Reserved, Settlement, Standing
from ..model.entry import Failure, Pool
from ..model.lane import Answer, BatchJob, LaneHead, Line, LineOutcome
from ..model.message import DeadLetter, Letter, Mail, Question
from ..model.mode import Config
from ..model.run import Head, Spec, Status, Usage

T = TypeVar("T")
Delivery = Literal["delivered", "duplicate", "gone", "full", "dropped"]
CommitResult = Literal["committed", "ready", "fenced"]
AnswerResult = Literal["answered", "closed", "unknown"]


#: Told what came of a row that was appended.
Landed = Callable[[CommitResult | BaseException], None]


class NewRun(msgspec.Struct, frozen=True, gc=False):
    """A run to be created, ready at once. `pool` is what a rebased run may take outcomes from."""

    id: str
    spec: Spec
    pool: Pool | None = None


class Created(msgspec.Struct, frozen=True, gc=False):
    """`new` is false where a run of that id was there already; `head` is the one that is there now."""

    new: bool
    head: Head


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """All that a worker needs to wake a run, in one trip.

    `deltas` were written after the checkpoint; `journal` has the rows since the last of either.
    """

    head: Head
    checkpoint: bytes | None
    pool: Pool | None
    journal: list[bytes]
    inbox: list[Letter]
    deltas: list[bytes] = []


class History(msgspec.Struct, frozen=True):
    """A run's journal rows, archived ones first, of which the first `archived`; and how many were dropped before."""

    rows: list[bytes]
    archived: int = 0
    dropped: int = 0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A claim to be kept."""

    run: str
    fence: int


class Turn(msgspec.Struct, kw_only=True, gc=False):
    """All that one commit writes of one run; atomic.

    `entries`: a journal row to append. `checkpoint`: the new state; the journal before it is archived, for `sweep` to
    seal, and `entries` are the first of the new one. `delta`: does the same, but is kept beside the checkpoint, after
    earlier ones, or in the place of the newest, as many as it `replaces` or there are; a new checkpoint takes the place
    of all of them. `consumed`: letters that leave the inbox; `kept`: letters that were handled and stay, taking no
    room. `outbox`: mail to other runs, delivered once each even if this process dies now; numbers grow per sender.
    `dead`: mail that no code took, to be listed. `lines`: requests for lanes. `withdrawn`: ids of lines that nobody
    waits for any more, as `Store.withdraw` takes them, before `lines` are put in. `answers` are kept for whoever asks
    the same, and lines that wait for them get them, before `lines` are put in. `asks` open and `closed_asks` close
    questions. `spawn`: runs to create (one that exists by that id is left alone). `seen`: the newest letter that this
    turn knew of.

    `status` `ready` with `release` false keeps the claim; anything else gives it up. A turn that parks
    or holds while the inbox has letters newer than `seen` leaves the run ready instead (result `ready`).
    A turn that ends the run closes its questions, withdraws its waiting lines, stores `value` or `error`,
    numbers it in the order of ends, and sends its outcome as a `result` to its spec's parent. Of what it leaves in
    its inbox, and of mail in an outbox that finds its recipient ended or not there, messages that were due become
    dead letters; of a run that failed or was cancelled, and so may go on, those that are scheduled too. Requests are
    answered with an error, subscribers hear the end, and events call their subscription off. What answers a request
    of its code (`is_answer`) stays, or gets, in the inbox of a run that failed or was cancelled, for when it goes on.

    `settled`: calls whose reservations are over, and what they did cost, or that wait for room no longer; one that
    isn't there any more changes nothing.
    `wants`: reservations that this turn knew not to be there; a turn that parks or holds while one of them doesn't
    wait for room any more leaves the run ready, as with newer letters. A turn that gives the claim up gives back all
    that the run has reserved, but for lines that are still to have an outcome, and none but `wants` wait from then on.

    A message in an outbox that finds a bounded mailbox full does as the recipient's spec says: it waits for room,
    in order; is dropped, and becomes a dead letter; or fails, which is the same. A request that is dropped or fails
    is answered with `MailboxFull`. What a run sends itself always has room, and so does who asks how far a mailbox was
    taken (`CAUGHT_UP`), but where mail waits for room: there that waits behind it.
    """

    run: str
    fence: int
    entries: bytes | None = None
    checkpoint: bytes | None = None
    delta: bytes | None = None
    replaces: int = 0
    consumed: list[int] = []
    kept: Sequence[int] = ()
    dead: Sequence[DeadLetter] = ()
    outbox: list[Mail] = []
    lines: Sequence[Line] = ()
    withdrawn: Sequence[str] = ()
    answers: Sequence[Answer] = ()
    asks: Sequence[Question] = ()
    closed_asks: Sequence[str] = ()
    spawn: Sequence[NewRun] = ()
    blobs: Sequence[
        tuple[bytes, bytes]
    ] = ()  #: (digest, content) that `entries` name; some may be there already
    settled: Sequence[Settlement] = ()
    wants: Sequence[str] = ()
    status: Status = "ready"
    release: bool = False
    wake: float | None = None
    reason: str = ""
    value: bytes | None = None
    error: Failure | None = None
    usage: list[Usage] | None = None
    seen: int = 0
    now: float = 0.0

    def after(self, deltas: Sequence[bytes]) -> list[bytes]:
        """The deltas that are kept once it is committed, where those were."""
        if self.checkpoint is not None:
            return []
        if self.delta is None:
            return [*deltas]
        return [*deltas[: max(len(deltas) - self.replaces, 0)], self.delta]


def adding(there: Sequence[T], *ones: T) -> list[T]:
    """What a turn has of a kind, and these: in the same list, where it has one, for there may be thousands."""
    if type(there) is list:
        there.extend(ones)
        return there
    return [*there, *ones]


class JobHead(msgspec.Struct, frozen=True):
    """A mapped set of runs. `total` is the number of rows, once all are known; `counts` by status."""

    id: str
    target: str
    created: float
    total: int | None = None
    counts: dict[str, int] = {}


class Came(msgspec.Struct):
    """New letters of one inbox or port, in order, and the newest that lay there before the first of them; 0 for none.

    Who has seen that one, and all before it, has seen all when it has read these; who hasn't looks for itself.
    """

    after: int
    letters: list[Letter]


class Hint(msgspec.Struct, frozen=True):
    """Something happened in this process's store: runs became ready, mail came to others, runs ended, lines wait.

    `ready` too: runs that were lost before and commit again, so that `claim` gives the next of those. `room`: bounded
    mailboxes may have room again. `runs` are ids; of `lines`, the names of lanes. `came`: of `mail`, the letters
    themselves, by run or port, as far as the store has them at hand.

    `elsewhere`: other processes have written something, and no more is known of it.

    Hints may be lost or doubled, and no other one comes from other processes: poll as well.
    """

    kind: Literal["ready", "mail", "ended", "lines", "room", "elsewhere"]
    runs: Collection[str]
    came: Mapping[str, Came] = {}


class Awake(Protocol):
    """A run in memory. `fence`: of its claim. `seen`: the newest letter that it has."""

    @property
    def id(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def seen(self) -> int: ...
    def mail(self, letters: Sequence[Letter], /) -> None:
        """Take letters, of which it may have some already."""
        ...


NOBODY: Final[Mapping[str, Awake]] = {}


class Store(Protocol):
    """Where runs live. Every method is safe to call again after a failure or a crash."""

    address: str
    at_once: bool  #: whether what `append` writes is durable when it returns

    async def open(self) -> None:
        """Make ready for use. Raises `StoreError` with the cure: unwritable, corrupt, of a newer format."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of everything."""
        ...

    def subscribe(
        self, listener: Callable[[Hint], None], awake: Mapping[str, Awake] = NOBODY
    ) -> Callable[[], None]:
        """Have `listener` called on the event loop for each hint; the return value ends it.

        `awake`: runs in memory, by id. A letter to one that has all before it may be given to it at once, instead of
        a hint.
        """
        ...

    # ------------------------------------------------------------ runs
    async def create(
        self, runs: Sequence[NewRun], *, now: float, worker: str = "", ttl: float = 0.0
    ) -> list[Created]:
        """Create those that aren't there, durably, in one transaction. With `worker`, new ones come claimed by it."""
        ...

    async def claim(
        self,
        worker: str,
        limit: int,
        ttl: float,
        *,
        now: float,
        but: Collection[str] = (),
        lapsed: bool = True,
    ) -> list[Claimed]:
        """Take up to `limit` runs that are ready, due, or whose claim has lapsed; highest priority, then oldest.

        Runs whose spec's `target` or `code` is in `but` are left to others; a store may take one that it has had since
        an older version of segue.

        Without `lapsed`, of claims that have lapsed only those of buried workers: time has jumped, and who holds a run
        may not have had the chance to renew it.

        A run of which something can't be read is held instead, with a reason that says what; mail that can't is a dead
        letter from then on, so that it goes on without it when it is revived.

        The fence of each grows by one, so that commits under an older claim fail; its reason to wait is over.

        A run whose claim lapsed twenty times with no commit between is held instead, and gives back what it has
        reserved; from the third time on, a worker gets one such at a time.
        """
        ...

    async def renew(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> list[bool]:
        """Keep claims for another `ttl` seconds; false for each that is lost."""
        ...

    def renew_from_thread(self, worker: str, leases: Sequence[Lease], ttl: float, *, now: float) -> None:
        """As `renew`, called from another thread while code blocks the loop; at best soon, and without an answer."""
        ...

    def commit(self, turns: Sequence[Turn]) -> Future[list[CommitResult]]:
        """Write turns; each is atomic, the list is not. Durable when the future is done.

        A future rather than a coroutine, so that a caller needs no task; it may be done already.
        `fenced` means that another worker holds the run and nothing of the turn was written.
        """
        ...

    def land(self, turn: Turn, then: Landed) -> CommitResult | None:
        """Write one turn, as of `commit`; what came of it, if that is durable already.

        If not, None, and `then` is called on the event loop with what comes of it, some time after this has returned.
        """
        ...

    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool:
        """Write a journal row and nothing else, as most commits do; whether it is durable already.

        `then` is called as of `land`.
        """
        ...

    async def inbox(self, run: str, after: int) -> list[Letter]:
        """Letters newer than `after`, in order, up to the first that can't be read."""
        ...

    def letters(self, after: Mapping[str, int]) -> Future[dict[str, list[Letter]]]:
        """Letters newer than the ids given, by run or port, in order; who has none is left out.

        A port is the address of a process, `PORT` and its worker's name, and is there without being made: runs send
        it answers for callers that are no runs. Its letters stay until they are cleared, or the worker is buried.
        A future as that of `commit`.
        """
        ...

    def clear(self, port: str, upto: int) -> Future[None]:
        """Forget letters of a port up to an id."""
        ...

    def deliver(self, mail: Sequence[Mail], *, now: float) -> Future[list[Delivery]]:
        """Put mail into inboxes and make parked recipients ready. Durable when the future is done, as of `commit`.

        A `tell` or `urgent` that is due later makes a recipient whose mailbox has no bound ready then, not before.

        Idempotent by `(to, sender, number)` for ever, as long as the numbers of one sender to one recipient
        grow: one that isn't above the highest so far is a duplicate. A `cancel` makes a held run ready too.
        `gone`: no such run, or it has ended and doesn't keep that. `full`: nothing was done; the recipient's spec says
        whether to wait for room and send it again, with a new number, or to fail. `dropped`: it is a dead letter, or
        was answered.
        """
        ...

    # ------------------------------------------------------------ dead letters
    async def dead_letters(self, *, run: str = "", after: int = 0, limit: int = 1000) -> list[DeadLetter]:
        """Mail that nobody took, to one run or all, in order from the one after `after`."""
        ...

    async def resend_dead(self, dead: int, *, now: float) -> Delivery | None:
        """Put a dead letter into its recipient's inbox again; unless that is done, it stays. None: no such one."""
        ...

    async def drop_dead(self, dead: Sequence[int]) -> int:
        """Forget dead letters; how many there were."""
        ...

    # ------------------------------------------------------------ runs, looked at
    async def get(self, run: str) -> Head | None:
        """A run's own record. What of it can't be read, here and in lists, its `damage` says; it harms no other."""
        ...

    async def load(self, run: str) -> Claimed | None:
        """As `claim` gives it, but to look at only."""
        ...

    async def runs(self, *, after: str = "", limit: int = 1000) -> list[Head]:
        """All runs, in order of id from the one after `after`."""
        ...

    async def ids(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of runs, in order, from the one after `after`; nothing else of them is read."""
        ...

    async def newest(
        self,
        *,
        job: str | None = None,
        parent: str = "",
        status: Sequence[str] = (),
        before: int = 0,
        limit: int = 1000,
    ) -> tuple[list[Head], int]:
        """Runs, the newest first, and from where to go on; 0: from the newest.

        Those of a job; with `job` empty, those of none that no run which is there has started; or those of no job that
        the run `parent` has started. Costs what it gives, whatever else is there.
        """
        ...

    async def run_counts(self) -> dict[str, int]:
        """Runs by status."""
        ...

    async def finished(self, job: str, after: int, limit: int) -> list[Head]:
        """Runs of a job in the order in which they ended, from the one after place `after`."""
        ...

    async def revive(
        self,
        run: str,
        *,
        pool: Pool | None,
        now: float,
        status: Sequence[Status],
        config: Config | None = None,
        along: Mapping[str, Pool] | None = None,
        lines: Sequence[str] = (),
    ) -> bool:
        """Make a run that is in one of `status` ready again.

        With `pool`, its journal is archived and starts empty. With `config`, its record has that one from now on.
        The runs `along`, each with its pool, are made so with it, as far as they are cancelled: all at once, or none.
        What it has reserved is given back, but for lines that are still to have an outcome.
        For those `lines` these runs wait again, as if they were put in anew; where one of them is to have no outcome
        any more, nothing is changed and this is false.
        """
        ...

    async def history(self, run: str, *, rows: bool = True) -> History:
        """All journal rows that are kept, archived ones first; without `rows`, how many were archived and dropped."""
        ...

    async def sweep(self, *, now: float, limit: int) -> int:
        """Seal what was archived, and drop what isn't to be kept any longer; of how many runs.

        Archived rows are packed and compressed, or dropped, as the run's `spec.kept` says; packed ones are dropped
        once they were kept for so long since then. With rows go the blobs that came with them in their turns and that
        nothing else holds: other turns, or what a run has of its own. Each call looks at up to `limit` runs and some of
        the rows of each: call again until it is 0. What a run does meanwhile isn't held up for longer than that takes.
        """
        ...

    async def remove(self, runs: Sequence[str]) -> list[bool]:
        """Forget runs that are over, with all that only they have, in one transaction; whether each is gone.

        One stays that hasn't ended, or of which a line is still to have an outcome, for that may be paid. A run that
        is created under an id that was removed gets fences above those that were, so that its mail isn't taken for what
        the other one sent.
        """
        ...

    async def removable(self, runs: Sequence[str]) -> list[bool]:
        """Which of these `remove` would remove now, or has."""
        ...

    async def workers(self) -> list[str]:
        """The names of those who hold runs or lanes and weren't buried, and of those whose ports have letters."""
        ...

    async def bury(self, workers: Sequence[str]) -> None:
        """Those are gone: whatever they hold lapses now, and letters to their ports are dropped.

        A store that is only to be looked at leaves that to those that write.
        """
        ...

    async def backlog(self, *, now: float, but: Collection[str] = ()) -> tuple[int, float | None]:
        """How many runs are ready or claimed now, but for those that `claim` leaves; when the next one is due."""
        ...

    # ------------------------------------------------------------ jobs
    async def put_job(self, job: JobHead) -> JobHead:
        """Create it, or set `total` of the one that is there."""
        ...

    async def get_job(self, job: str) -> JobHead | None:
        """A job with its counts."""
        ...

    async def list_jobs(self) -> list[JobHead]:
        """All jobs with their counts, oldest first."""
        ...

    async def remove_job(self, job: str) -> bool:
        """Forget a job that has no runs any more; whether it is gone."""
        ...

    # ------------------------------------------------------------ questions
    async def asks(self, *, to: str = "", run: str = "") -> list[Question]:
        """Open questions, oldest first. One that can't be read says so, and its `n` is -1."""
        ...

    async def asked(self, after: int, *, to: str = "", limit: int = 1000) -> tuple[list[Question], int]:
        """Open questions asked later than that, oldest first, and from where to go on; 0: from the first.

        Costs what is new, however many are open.
        """
        ...

    async def get_ask(self, ask: str) -> tuple[Question, str] | None:
        """A question and its state: `open`, `answered` or `closed`."""
        ...

    async def answer(self, ask: str, value: bytes, *, now: float) -> AnswerResult:
        """Close an open question and send its answer to its run, in one transaction: the first answer wins."""
        ...

    # ------------------------------------------------------------ blobs
    async def get_blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Contents by digest."""
        ...

    # ------------------------------------------------------------ answers
    # A line says by `same` that it needn't be sent where somebody asks the same. As it is put in, in that transaction:
    # if an answer is kept that came since its `since`, it ends `ok` and its run gets that as a `result` named `REUSED`.
    # Else, if another line of its `same` waits or is taken that will be answered no later than it has to be, it is
    # `following`: its body is dropped, and it is in no job. (One that is due sooner and then goes live makes the other
    # due so soon; one that is due sooner and then fails follows none.) Else it waits, as any line does.
    #
    # An outcome that is `whole` is kept as the answer. An outcome of the last line of a `same` that isn't following is
    # that of its followers, whatever it is, in the same transaction and as a `result` named `REUSED`, but for these:
    # it was withdrawn, or its run ended, and it would go round again; it missed its own deadline, which those share
    # who missed theirs too. Then the first follower takes its place and waits, the others follow that one. A line in a
    # job that is withdrawn stays wanted while others follow it; where its run doesn't get its outcome, the first
    # follower's `result` has the outcome's lane, so that exactly one run counts what was paid.
    async def answers(self, same: Sequence[str]) -> dict[str, Answer]:
        """The newest answers kept to those requests."""
        ...

    async def forget(self, *, before: float) -> int:
        """Drop the answers that came before then, for good; how many. What journals hold of them stays.

        There may be millions: they go in portions, and others write in between.
        """
        ...

    # ------------------------------------------------------------ lanes
    async def lanes(self) -> list[LaneHead]:
        """Every lane with waiting lines or open jobs."""
        ...

    async def claim_lane(self, lane: str, worker: str, ttl: float, *, now: float) -> int | None:
        """The fence under which this worker drives the lane now (the same while it keeps it), or None."""
        ...

    async def take(
        self,
        lane: str,
        fence: int,
        *,
        max_lines: int,
        max_bytes: int,
        job: str,
        nonce: str,
        now: float,
        late_by: float = 0.0,
    ) -> BatchJob | None:
        """Assign the oldest waiting lines to a new job in state `intent`, in one transaction.

        Those that are late by `late_by` are left: they are to be promoted. Of those that fail when they are late, it
        leaves what is due now. None: nothing waits, or fenced.
        """
        ...

    async def promote(
        self, lane: str, fence: int, *, by: float, max_lines: int, job: str, now: float
    ) -> BatchJob | None:
        """Assign lines that are late by then to a new job in state `live`, those due first, in one transaction.

        Of those that fail when they are late, it takes what is due now.

        One that waits is in that job only. One that is in a provider's is known to that still: the first outcome that
        is `ok` counts, and the `used` of the other is kept as unclaimed; where its live call fails (`error`), it is
        the provider's job's again. None: nothing is late, or fenced. A line is promoted once, and doesn't go round
        again: its error is its run's.
        """
        ...

    async def unclaimed(self, *, run: str = "", job: str = "") -> list[Usage]:
        """What was paid and nobody got, one each: the second outcomes of lines, and those that nobody waited for.

        Nobody waits where the run has ended or the line was withdrawn. Nor did who ended before it took its result,
        whose mail says what was `used`.
        """
        ...

    async def put_batch_job(self, job: BatchJob, fence: int) -> bool:
        """Write a job's new state; false if fenced. A job is closed once all its lines have outcomes.

        One that is closed knows promoted lines no longer.
        """
        ...

    async def batch_jobs(self, *, lane: str = "", open_only: bool = True, newest: int = 0) -> list[BatchJob]:
        """Provider jobs, oldest first; only the `newest` so many, unless that is 0. One whose record can't be read is
        `unread`.

        Those that are open, and the newest, are found without a look at all that ever were.
        """
        ...

    async def job_lines(self, job: str, after: str, limit: int, *, bodies: bool = True) -> list[Line]:
        """Lines of a provider job that have no outcome yet, in the order in which they came; those after `after`, if
        that is there still.

        Without `bodies` they may come empty, and promoted ones whose live call was answered are among them. `since`
        isn't given back.
        """
        ...

    async def job_bodies(self, job: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Ids and bodies of those of them that somebody waits for, `limit` at most, fewer where bodies are large; empty
        at the end.

        Of promoted lines only those whose live call wasn't answered.
        """
        ...

    async def outcomes(
        self, job: str, fence: int, chunk: Sequence[LineOutcome], *, now: float
    ) -> list[str] | None:
        """Store how lines ended and send each outcome to its run, in one transaction of few statements.

        Gives the ids that this job doesn't hold open (unknown or done already), which change nothing;
        None if fenced. An outcome with `again` puts its line back to waiting, its attempt one higher.
        A line's reservation is over when nothing more is to come of it: by its outcome, both where it was promoted, by
        being withdrawn, or by its job's end. What was `paid` is taken off its accounts as long as it is there.
        """
        ...

    async def withdraw(self, ids: Sequence[str], *, now: float) -> list[bool]:
        """Nobody waits for these lines any more: those that wait are cancelled, atomically, and true is given for them.

        One that is in a provider job stays there and its outcome is sent as ever, but it doesn't go round again: where
        it might, it is cancelled, and nothing is sent. A line that is put in anew is waited for as before.
        """
        ...

    async def open_lines(self, ids: Sequence[str]) -> list[str]:
        """Those of these lines that are still to have an outcome."""
        ...

    async def line_counts(self, *, job: str = "", open_only: bool = False) -> dict[str, int]:
        """Lines by status, of one provider job or of all.

        With `open_only` those that are still to have an outcome, found without a look at all that ever were.
        """
        ...

    # ------------------------------------------------------------ budgets
    async def reserve(self, wanted: Sequence[Reservation], *, now: float) -> list[Reserved]:
        """Reserve room for calls, each in all of its accounts or in none, in one transaction; durable on return.

        Idempotent by id: what is reserved already stays as it is. An account that isn't there is made, with the limit
        that comes along. Never is an account's `spent` and `reserved` above its limit by a reservation. A call without
        room is written down as waiting, once by id, and until there is: whatever gives room back makes those runs
        ready, in order, for which there is enough; and those for which there can't be any more, that they see it.
        """
        ...

    async def fund(self, account: str, limit: Limit, *, raising: bool = False, now: float) -> Standing:
        """Set the limits of an account that `limit` names, and make runs ready that have room now.

        It is made where it isn't there. `raising`: a lower limit than there is changes nothing.
        """
        ...

    async def budgets(self, accounts: Sequence[str] = ()) -> list[Standing]:
        """How accounts stand, those of these ids or all, in order of id."""
        ...

    async def reserved(self, job: str) -> dict[str, Amount]:
        """The lines of a provider job that have a reservation, and how much each has."""
        ...
