"""Mail: put into the inboxes of runs and the ports of processes, and dead letters sent again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ...model.message import PORT, Letter, Mail
from ...ports.store import Came, Delivery
from .. import refusal
from .bulk import Query, Values, as_json
from .heads import encode
from .ledger import Ledger
from .schema import DONE, HELD, PARKED, READY, ROOM, STATUSES
from .untaken import Boxes, admit, dead_letter, drop, put_dead


class Post(msgspec.Struct, frozen=True, gc=False):
    """Mail on its way. Without `marked` its source sees to it that it is sent once.

    What `stays` is the store's care where it can't be delivered; what is `admitted` has waited for its room.
    """

    mail: Mail
    now: float
    marked: bool = True
    stays: bool = False
    admitted: bool = False


#: A run by its key, its status, and a result for it, which is sent once and takes no room in a mailbox.
Result = tuple[int, int, Mail]


class Resending(msgspec.Struct, frozen=True):
    """A dead letter to be sent again."""

    dead: int
    now: float


_RECIPIENTS = Query(("id", "k", "status", "bound"), "from runs where id in (select value from json_each(?))")
_MARKS = Query(
    ("m.run", "m.sender", "m.number"),
    "from json_each(?) as q cross join marks m"
    " on m.run = json_extract(q.value, '$[0]') and m.sender = json_extract(q.value, '$[1]')",
)
_LETTERS = Values("run, mail", "insert into inbox(run, mail) select run, mail from {v}")
_STATED = Values("run, mail, state", "insert into inbox(run, mail, state) select run, mail, state from {v}")
_PORTS = Values("port, mail", "insert into ports(port, mail) select port, mail from {v}")
_NEWEST = Query(
    ("q.value", "k"),
    "from json_each(?) as q cross join inbox i on k = (select max(k) from inbox where run = q.value)",
)
_NEWEST_AT_PORT = "select max(k) from ports where port = ?"
_WAKE_BY = Values(
    "run, due",
    f"update runs set wake = min(coalesce(wake, v.due), v.due) from {{v}} where k = v.run and status = {PARKED}",
)
_MARK = Values(
    "run, sender, number",
    "insert into marks(run, sender, number) select run, sender, number from {v} where true"
    " on conflict do update set number = excluded.number",
)


def post(ledger: Ledger, items: Sequence[Post]) -> list[Delivery]:
    """Put mail into inboxes, and make parked recipients ready: at most five statements a few hundred letters.

    Bounded mailboxes cost two more, and what can't be delivered some.
    """
    if not items:
        return []
    bag = _Bag(ledger, items)
    out = bag.sort()
    bag.write()
    return out


class _Bag:
    """Mail that is delivered in one go: looked at by recipient, sorted, written down."""

    def __init__(self, ledger: Ledger, items: Sequence[Post]) -> None:
        self._ledger, self._items, self._now = ledger, items, items[0].now
        found = _RECIPIENTS.rows(ledger.cx, (as_json({item.mail.to for item in items}),))
        self._statuses = {id: status for id, _, status, _ in found}
        self._live: dict[str, int] = {id: k for id, k, status, _ in found if status < DONE}
        self._over: dict[str, int] = {id: k for id, k, status, _ in found if status >= DONE}
        self._waits = {
            id for id, _, status, _ in found if status == PARKED
        }  #: which of them mail makes ready
        self._bounds = {k: bound for _, k, status, bound in found if bound and status < DONE}
        self._refused: list[refusal.Refused] = []
        self._boxes = Boxes(ledger, self._bounds, self._refused) if self._bounds else None
        self._letters: list[tuple[int, bytes]] = []
        self._read: list[Mail] = []  #: the same, as they are read
        self._states: dict[int, int] = {}  #: of letters, by their place, where it isn't 0
        self._marked: dict[tuple[int, str], int] = {}  #: the newest number of each sender
        self._told: dict[str, float] = {}  #: when each is woken by it: 0 for at once
        self._ports: list[Mail] = []

    # ------------------------------------------------------------ sorting
    def sort(self) -> list[Delivery]:
        """Say what becomes of each."""
        bounds, boxes, told = self._bounds, self._boxes, self._told
        letters, marked, marks = self._letters, self._marked, self._known_marks()
        out: list[Delivery] = []
        for item in self._items:
            mail = item.mail
            run = self._recipient(mail)
            if run is None and mail.to.startswith(PORT):
                self._ports.append(mail)
                out.append("delivered")
                continue
            if run is None:
                self._find_nobody(item)
                out.append("gone")
                continue
            if item.marked and marks.get((run, mail.sender), -1) >= mail.number:
                out.append("duplicate")
                continue
            delivery: Delivery | None = None
            if (
                boxes is not None
                and run in bounds
                and refusal.takes_room(mail, refusal.FULL[bounds[run] % 4])
            ):
                if not item.admitted:
                    delivery = boxes.take(run, mail, item.now, stays=item.stays)
                if delivery is None:
                    self._states[len(letters)] = ROOM
            out.append(delivery or "delivered")
            if item.marked and delivery != "full":
                marks[run, mail.sender] = marked[run, mail.sender] = mail.number
            if delivery is None:
                letters.append((run, encode(mail)))
                self._read.append(mail)
                if mail.kind == "cancel" and self._statuses[mail.to] == HELD:
                    self._waits.add(mail.to)
                if mail.to in self._over:
                    continue  # it lies there until the run goes on
                due = refusal.wakes_at(mail, item.now) if run not in bounds else 0.0
                told[mail.to] = min(told.get(mail.to, due), due)
        return out

    def _known_marks(self) -> dict[tuple[int, str], int]:
        """The newest number that each run has had of each of these senders."""
        pairs = {
            (run, item.mail.sender)
            for item in self._items
            if item.marked and (run := self._recipient(item.mail)) is not None
        }
        if not pairs:
            return {}
        rows = _MARKS.rows(self._ledger.cx, (as_json(pairs),))
        return {(run, sender): number for run, sender, number in rows}

    def _recipient(self, mail: Mail) -> int | None:
        """The run that takes it, by its key; one that is over takes what it asked for."""
        run = self._live.get(mail.to)
        if run is None and mail.to in self._over and refusal.is_kept(mail, STATUSES[self._statuses[mail.to]]):
            return self._over[mail.to]
        return run

    def _find_nobody(self, item: Post) -> None:
        """Its recipient has ended, or never was."""
        status = self._statuses.get(item.mail.to)
        if item.stays and status is not None:
            self._refused.append(refusal.ended([item.mail], item.mail.to, STATUSES[status], item.now))
        elif item.stays:
            self._refused.append(refusal.unknown([item.mail], item.mail.to, item.now))

    # ------------------------------------------------------------ writing
    def write(self) -> None:
        """Write down what was sorted, and tell of it."""
        if self._ports:
            self._write_to_ports()
        if self._letters:
            self._write_to_inboxes()
        if self._marked:
            _MARK.run(self._ledger.cx, [(*pair, number) for pair, number in self._marked.items()])
        if self._told:
            self._rouse()
        if self._boxes is not None:
            self._boxes.write()
        for one in self._refused:
            refuse(self._ledger, one, self._now)

    def _write_to_ports(self) -> None:
        ledger, ports = self._ledger, self._ports
        newest = {port: ledger.one(_NEWEST_AT_PORT, port)[0] for port in {mail.to for mail in ports}}
        last = _PORTS.insert(ledger.cx, [(mail.to, encode(mail)) for mail in ports])
        ledger.hint("mail", newest)
        _hand_over(ledger, ports, last, newest)

    def _write_to_inboxes(self) -> None:
        ledger, letters, states = self._ledger, self._letters, self._states
        here = {run: k for run, k in self._live.items() if run in ledger.claimed and run in self._told}
        newest = dict(_NEWEST.rows(ledger.cx, (as_json(here.values()),))) if here else {}
        if states:
            rows = [(*letter, states.get(n, 0)) for n, letter in enumerate(letters)]
            last = _STATED.insert(ledger.cx, rows)
        else:
            last = _LETTERS.insert(ledger.cx, letters)
        if here:
            _hand_over(ledger, self._read, last, {run: newest.get(k, 0) for run, k in here.items()})

    def _rouse(self) -> None:
        """Those that wait are ready, or will be when their mail is due; the others hear of it."""
        ledger, live, waits, told = self._ledger, self._live, self._waits, self._told
        _wake(ledger, {id: live[id] for id, due in told.items() if id in waits and not due}, self._now)
        later = [(live[id], due) for id, due in told.items() if id in waits and due]
        if later:
            _WAKE_BY.run(ledger.cx, later)
            ledger.hint("ready", (id for id, due in told.items() if due))  # of it, when others are due
        if not told.keys() <= waits:
            ledger.hint("mail", (id for id in told if id not in waits))


def _hand_over(ledger: Ledger, mail: Sequence[Mail], last: int, newest: Mapping[str, int | None]) -> None:
    """Have hints bring letters along to those who read here. `last`: the last id; `newest`: what lay there before."""
    for id, one in enumerate(mail, last - len(mail) + 1):
        if one.to not in newest:
            continue
        came, before = ledger.came.get(one.to), newest[one.to] or 0
        if came is not None and before <= came.letters[-1].id:
            came.letters.append(Letter(id, one))
        else:  # nothing was told of yet, or something lies between
            ledger.came[one.to] = Came(before, [Letter(id, one)])


def bring(ledger: Ledger, results: Sequence[Result], now: float) -> None:
    """Put results into the inboxes of runs that haven't ended, and make parked ones ready: two statements, of which one
    is for a few hundred letters."""
    if not results:
        return
    _LETTERS.run(ledger.cx, [(run, encode(mail)) for run, _, mail in results])
    _wake(ledger, {mail.to: run for run, status, mail in results if status == PARKED}, now)
    there = [mail.to for _, status, mail in results if status != PARKED]
    if there:
        ledger.hint("mail", there)
        for run in there:
            ledger.came.pop(run, None)  # who has the letters before these looks for all


def _wake(ledger: Ledger, runs: dict[str, int], now: float) -> None:
    """Runs that waited, by id, are ready."""
    if runs:
        ledger.cx.execute(
            f"update runs set status = {READY}, wake = null, updated = ? where status in ({PARKED}, {HELD})"
            " and k in (select value from json_each(?))",
            (now, as_json(runs.values())),
        )
        ledger.hint("ready", runs)


def refuse(ledger: Ledger, refused: refusal.Refused, now: float) -> None:
    """Keep the dead letters, and tell those who wait for an answer."""
    put_dead(ledger, refused.dead)
    post(ledger, [Post(mail, now, marked=False, stays=True) for mail in refused.back])


def make_room(ledger: Ledger, bounds: dict[int, int], now: float) -> None:
    """Bounded mailboxes (by the key of the run) that were emptied a bit take what waits for room."""
    mail = admit(ledger, bounds, now)
    post(ledger, [Post(one, now, marked=False, admitted=True) for one in mail])


def resend(ledger: Ledger, items: Sequence[Resending]) -> list[Delivery | None]:
    """Put dead letters into inboxes again."""
    out: list[Delivery | None] = []
    for item in items:
        letter = dead_letter(ledger.cx, item.dead)
        out.append(None)
        if letter is not None:
            (out[-1],) = post(ledger, [Post(letter.mail, item.now, marked=False)])
            if out[-1] in ("delivered", "dropped"):
                drop(ledger, [[item.dead]])
    return out


def clear(ledger: Ledger, items: Sequence[tuple[str, int]]) -> list[None]:
    """Forget letters of ports."""
    for port, upto in items:
        ledger.cx.execute("delete from ports where port = ? and k <= ?", (port, upto))
    return [None for _ in items]
