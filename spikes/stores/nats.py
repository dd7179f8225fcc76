"""The heart of the store contract on NATS JetStream: a run is the log of its subject.

A turn is one message, published only if the run's log still ends where its writer thinks it does: that is
the fence, and since journal row, head and outbox are one message, a commit is atomic by itself.

| subject             | holds                                                                             |
|---------------------|-----------------------------------------------------------------------------------|
| `r.RUN.q`, `.t`     | turns; `q` leaves the run ready; `qo`, `to`: the turn has an outbox               |
| `r.RUN.m.SENDER`    | letters; the last one of a sender is the mark that stops doubles                  |
| `r.RUN.w.t`, `w.RUN`| the wake-up of a parked run, and the schedule from which the server publishes it  |
| `j.JOB.RUN`         | an end; its place in the stream is its place in the order                         |
| `l.LANE.LINE`       | lines                                                                             |
| `d.LANE.t`          | what the lane's driver did                                                        |

No index is kept: the consumer `work` hands each ready turn, letter and wake-up to one worker as a hint, and
a hint that isn't acknowledged is the lease. The consumer `relay` does the same for turns with an outbox.

Run it: `python spikes/stores/nats.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # this file bears the name of a client library, which must win

import msgspec
import nats as client
from common import BODY, Server, crashing_worker, new_run, passed, rate, tell, turn
from nats.aio.msg import Msg
from segue.model.lane import Line, LineOutcome
from segue.model.message import Letter, Mail
from segue.model.run import ENDED, CallRef, Spec, Status
from segue.ports.store import NewRun, Turn

LAST = "Nats-Expected-Last-Subject-Sequence"
OF = LAST + "-Subject"
WRONG_LAST = 10071
pack = msgspec.msgpack.encode


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One message of a run's log: the head as it is from now on, and what this turn added.

    `hint` is the hint under which the run is claimed, 0 if it isn't, `tries` how often that one had been
    handed out by then: only when it is handed out once more has the claim lapsed. `mailed` is the last turn before this
    one that had an outbox, `sent` the highest number that any letter of this run bore.
    """

    status: Status
    fence: int = 0
    hint: int = 0
    tries: int = 0
    spec: Spec | None = None
    wake: float | None = None
    entries: bytes | None = None
    consumed: list[int] = []
    value: bytes | None = None
    mail: list[Mail] = []
    spawn: list[NewRun] = []
    lines: list[Line] = []
    ends: str = ""
    mailed: int = 0
    sent: int = 0


class Held(msgspec.Struct):
    """What a worker knows of a run that it has claimed."""

    spec: Spec
    fence: int
    seq: int
    hint: Msg
    mailed: int
    sent: int


def token(id: str) -> str:
    """An id as part of a subject."""
    return re.sub(r"[^\w-]", lambda m: f"={ord(m[0]):x}=", id)


def seq_of(hint: Msg) -> int:
    """Where a message from a consumer stands in the stream."""
    return int(hint.metadata.sequence.stream)


class NatsStore:
    """As much of `Store` as shows whether the rest can be done."""

    def __init__(self, port: int, ttl: float = 1.0) -> None:
        self.url, self.ttl = f"nats://127.0.0.1:{port}", ttl
        self.held: dict[str, Held] = {}
        self.reads: dict[str, tuple[list[Msg], asyncio.Future[list[Msg]]]] = {}
        self.count = itertools.count()

    async def open(self) -> None:
        """Connect; make the stream and its two consumers."""

        async def quiet(_error: Exception) -> None:
            """A lost connection shows in what waits for it."""

        self.nc = await client.connect(self.url, allow_reconnect=False, pending_size=64 << 20, error_cb=quiet)
        subjects = ["r.>", "w.>", "j.>", "l.>", "d.>"]
        config = {"name": "S", "subjects": subjects, "allow_direct": True, "allow_msg_schedules": True}
        await self._api("STREAM.CREATE.S", config)
        hints = ["r.*.q", "r.*.qo", "r.*.m.*", "r.*.w.*"]
        for name, filters in (("work", hints), ("relay", ["r.*.qo", "r.*.to"])):
            options = {"durable_name": name, "filter_subjects": filters, "ack_policy": "explicit"}
            options |= {"ack_wait": int(self.ttl * 1e9), "max_ack_pending": -1}
            await self._api(f"CONSUMER.CREATE.S.{name}", {"stream_name": "S", "config": options})
        self.box = self.nc.new_inbox()
        await self.nc.subscribe(self.box + ".*", cb=self._on_read)

    async def close(self) -> None:
        """Disconnect."""
        await self.nc.close()

    async def _api(self, call: str, body: Any) -> Any:
        said = json.loads(
            (await self.nc.request(f"$JS.API.{call}", json.dumps(body).encode(), timeout=10)).data
        )
        if "error" in said:
            raise RuntimeError(said["error"])
        return said

    async def _put(
        self, subject: str, body: bytes, last: int | None = None, of: str = "", **more: str
    ) -> int:
        """Publish; if `last` is given, only if it is the last of its subject, or of those that `of` covers.

        Gives the place in the stream, or minus the place of the message that is last in truth, less one.
        """
        headers = {k.replace("_", "-"): v for k, v in more.items()}
        if last is not None:
            headers[LAST] = str(last)
            if of:
                headers[OF] = of
        said = json.loads((await self.nc.request(subject, body, headers=headers or None, timeout=20)).data)
        if "error" not in said:
            return int(said["seq"])
        if said["error"]["err_code"] == WRONG_LAST:
            return -1 - int(said["error"]["description"].rsplit(" ", 1)[1])
        raise RuntimeError(said["error"])

    async def _on_read(self, message: Msg) -> None:
        rows, future = self.reads[message.subject.rsplit(".", 1)[1]]
        if (message.headers or {}).get("Status") and not future.done():
            future.set_result(rows)
        else:
            rows.append(message)

    async def _read(self, subject: str, after: int = 0, limit: int = 100_000) -> list[Msg]:
        """All messages of a subject after a place, in order, in one trip.

        Reads go to any replica: a cluster of servers must switch direct reads off, or check again.
        """
        key = str(next(self.count))
        future: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
        self.reads[key] = ([], future)
        ask = {"batch": limit, "seq": after + 1, "next_by_subj": subject}
        await self.nc.publish("$JS.API.DIRECT.GET.S", json.dumps(ask).encode(), reply=f"{self.box}.{key}")
        try:
            return await asyncio.wait_for(future, 20)
        finally:
            del self.reads[key]

    async def _last(self, subject: str = "", seq: int = 0) -> tuple[int, bytes]:
        """The last message of a subject, or that at a place: where it is and what it holds."""
        ask = {"last_by_subj": subject} if subject else {"seq": seq}
        message = await self.nc.request("$JS.API.DIRECT.GET.S", json.dumps(ask).encode(), timeout=10)
        return (int(message.headers["Nats-Sequence"]), message.data) if not _status(message) else (0, b"")

    async def _hints(self, consumer: str, limit: int, wait: float) -> list[Msg]:
        """Hints that are there now, or come in time. No pull is left open, that would swallow later ones."""
        box, hints = self.nc.new_inbox(), []
        listening = await self.nc.subscribe(box)
        ask = json.dumps({"batch": limit, "no_wait": True}).encode()
        until = time.monotonic() + wait
        while not hints:
            await self.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.S.{consumer}", ask, reply=box)
            while len(hints) < limit:
                message = await listening.next_msg(10)
                if _status(message):
                    break
                hints.append(message)
            if time.monotonic() > until:
                break
            await asyncio.sleep(0 if hints else 0.01)
        await listening.unsubscribe()
        return hints

    async def head(self, run: str) -> tuple[int, Record | None]:
        """A run's last record."""
        seq, data = await self._last(f"r.{token(run)}.*")
        return seq, msgspec.msgpack.decode(data, type=Record) if seq else None

    async def create(self, runs: Sequence[NewRun]) -> list[bool]:
        """Idempotent: a log is begun only where there is none. Each is a message of its own."""

        async def one(run: NewRun) -> bool:
            log = f"r.{token(run.id)}."
            return await self._put(log + "q", pack(Record(status="ready", spec=run.spec)), 0, log + "*") > 0

        return await asyncio.gather(*map(one, runs))

    async def claim(self, limit: int, wait: float = 0.1) -> list[tuple[str, int, list[bytes], list[Letter]]]:
        """Follow hints. Ones that lead to nothing (the run is claimed, or has moved on) are let go."""
        hints = await self._hints("work", limit, wait)
        first: dict[str, list[Msg]] = {}
        for hint in hints:
            first.setdefault(hint.subject.split(".")[1], []).append(hint)
        claimed = await asyncio.gather(*(self._follow(run, rows) for run, rows in first.items()))
        return [c for c in claimed if c]

    async def _follow(self, run: str, hints: list[Msg]) -> tuple[str, int, list[bytes], list[Letter]] | None:
        rows = await self._read(f"r.{run}.>")
        seq, record, spec, journal, letters = _fold(rows)
        for i, hint in enumerate(hints):
            at = seq_of(hint)
            tries = hint.metadata.num_delivered or 1
            if record and record.hint == at and record.tries >= tries:
                continue  # an old copy of the hint of a claim that holds
            lapsed = record is not None and record.hint == at
            fresh = (
                record is not None and not record.hint and at >= seq and record.status in ("ready", "parked")
            )
            if not (record and spec and (lapsed or fresh)):
                await hint.ack()
                continue
            mine = Record(status="ready", fence=record.fence + 1, hint=at, tries=tries)
            mine.mailed, mine.sent = record.mailed, record.sent
            said = await self._put(f"r.{run}.t", pack(mine), seq, f"r.{run}.*")
            if said < 0:
                return None  # another was faster; the hint will come again
            for rest in hints[i + 1 :]:
                await rest.ack()  # the holder reads the inbox, and sees to what comes while it parks
            self.held[run] = Held(spec, mine.fence, said, hint, mine.mailed, mine.sent)
            return run, mine.fence, journal, letters
        return None

    async def renew(self, run: str) -> None:
        """Put off the hint's return: no write to disk. Whether the claim is lost shows at the next commit."""
        await self.held[run].hint.in_progress()

    async def commit(self, turn: Turn) -> str:
        """One message. One that parks must also be the newest of all, letters included."""
        run, held = token(turn.run), self.held.get(turn.run)
        if not held or held.fence != turn.fence:
            return "fenced"
        keep = turn.status == "ready" and not turn.release
        ended = turn.status in ENDED
        record = Record(status=turn.status, fence=turn.fence, hint=seq_of(held.hint) if keep else 0)
        record.tries = held.hint.metadata.num_delivered or 1
        record.entries, record.consumed, record.value = turn.entries, list(turn.consumed), turn.value
        record.mail, record.spawn, record.lines = list(turn.outbox), list(turn.spawn), list(turn.lines)
        record.wake = turn.wake
        record.sent = max([held.sent, *(m.number for m in turn.outbox)])
        if ended and held.spec.parent:
            call, record.sent = held.spec.parent, record.sent + 1
            record.mail.append(
                Mail(call.run, turn.run, record.sent, "result", "", turn.value, turn.error, call)
            )
        record.ends = held.spec.job if ended else ""
        record.mailed = held.mailed
        outbox = "o" if record.mail or record.spawn or record.lines or record.ends else ""
        said, result = 0, "committed"
        if turn.status == "parked":
            said, result = await self._park(run, held, turn, record, outbox)
        if not said:
            kind = "q" if record.status == "ready" and not keep else "t"
            said = await self._put(f"r.{run}.{kind}{outbox}", pack(record), held.seq, f"r.{run}.*")
        if said < 0:
            self.held.pop(turn.run, None)
            return "fenced"
        held.seq, held.sent, held.mailed = said, record.sent, said if outbox else held.mailed
        if not keep:
            await self.held.pop(turn.run).hint.ack()
        return result

    async def _park(self, run: str, held: Held, turn: Turn, record: Record, outbox: str) -> tuple[int, str]:
        """Park if no unseen letter is there and none comes meanwhile; 0 says: leave it ready instead."""
        if turn.wake:
            at = datetime.fromtimestamp(turn.wake, UTC).isoformat().replace("+00:00", "Z")
            target = {"Nats_Schedule": f"@at {at}", "Nats_Schedule_Target": f"r.{run}.w.t"}
            await self._put(f"w.{run}", b"", **target)
        for _ in range(10):
            letter, _data = await self._last(f"r.{run}.m.*")
            woken, _data = await self._last(f"r.{run}.w.*") if turn.wake else (0, b"")
            if letter > turn.seen or woken > held.seq:
                break
            said = await self._put(f"r.{run}.t{outbox}", pack(record), max(held.seq, letter), f"r.{run}.>")
            if said > 0:
                return said, "committed"
            if (await self.head(turn.run))[0] != held.seq:
                return said, "fenced"
        record.status = "ready"
        return 0, "ready"

    async def deliver(self, mail: Sequence[Mail]) -> list[str]:
        """Each letter is one publish, and is itself the hint that wakes a parked run."""
        return await asyncio.gather(*map(self._mail, mail))

    async def _mail(self, mail: Mail) -> str:
        _seq, head = await self.head(mail.to)
        if not head or head.status in ENDED:
            return "gone"
        return await self._drop(mail)

    async def _drop(self, mail: Mail, sender: str = "") -> str:
        """The last letter of a sender is the mark: an older or equal number is a double."""
        subject, last, body = f"r.{token(mail.to)}.m.{token(sender or mail.sender)}", 0, pack(mail)
        while (said := await self._put(subject, body, last)) < 0:
            last = -1 - said
            _seq, before = await self._last(seq=last)
            if msgspec.msgpack.decode(before, type=Mail).number >= mail.number:
                return "duplicate"
        return "delivered"

    async def relay(self, limit: int = 1000, wait: float = 0.1) -> int:
        """Hand over outboxes. An acknowledged hint is a settled outbox; no write of its own is needed."""
        floor = (await self._api("CONSUMER.INFO.S.relay", {}))["ack_floor"]["stream_seq"]
        hints = await self._hints("relay", limit, wait)
        runs: dict[str, list[Msg]] = {}
        for hint in sorted(hints, key=seq_of):
            runs.setdefault(hint.subject.split(".")[1], []).append(hint)

        async def one(rows: list[Msg]) -> None:
            done = floor
            for hint in rows:
                record = msgspec.msgpack.decode(hint.data, type=Record)
                await self._hand_over(hint.subject.split(".")[1], record, done)
                done = seq_of(hint)
                await hint.ack()

        await asyncio.gather(*map(one, runs.values()))
        return len(hints)

    async def _hand_over(self, run: str, record: Record, floor: int) -> None:
        """A run's outbox, earlier ones first: marks are plain numbers, so none may be overtaken."""
        if record.mailed > floor:
            _seq, data = await self._last(seq=record.mailed)
            await self._hand_over(run, msgspec.msgpack.decode(data, type=Record), floor)
        await self.create(record.spawn)
        for _to, letters in itertools.groupby(sorted(record.mail, key=lambda m: m.to), key=lambda m: m.to):
            for mail in letters:
                await self._mail(mail)
        for line in record.lines:
            await self._put(f"l.{token(line.lane)}.{token(line.id)}", pack(line), 0)
        if record.ends:
            await self._put(f"j.{token(record.ends)}.{run}", b"", 0)

    async def inbox(self, run: str) -> list[Mail]:
        """What lies in an inbox."""
        return [letter.mail for letter in _fold(await self._read(f"r.{token(run)}.>"))[4]]


def _status(message: Msg) -> str:
    return (message.headers or {}).get("Status", "")


def _fold(rows: Sequence[Msg]) -> tuple[int, Record | None, Spec | None, list[bytes], list[Letter]]:
    """A run from its log: last record and its place, spec, journal, inbox."""
    seq, record, spec, journal, letters = 0, None, None, [], {}
    for row in rows:
        at, kind = int(row.headers["Nats-Sequence"]), row.headers["Nats-Subject"].split(".")[2]
        if kind == "m":
            letters[at] = Letter(at, msgspec.msgpack.decode(row.data, type=Mail))
        elif kind != "w":
            seq, record = at, msgspec.msgpack.decode(row.data, type=Record)
            spec = spec or record.spec
            if record.entries:
                journal.append(record.entries)
            for id in record.consumed:
                letters.pop(id, None)
    return seq, record, spec, journal, list(letters.values())


class Lane(msgspec.Struct):
    """A lane as its driver knows it: the log of `d.LANE.t`, folded. `jobs`: open lines and where they lie."""

    name: str
    fence: int = 0
    worker: str = ""
    until: float = 0.0
    seq: int = 0
    taken: int = 0  #: all lines up to here belong to jobs, but for `again`
    again: dict[str, int] = {}
    jobs: dict[str, dict[str, int]] = {}


async def drive(store: NatsStore, name: str, worker: str, ttl: float, now: float) -> Lane | None:
    """`claim_lane`: read the lane's log, and write oneself into it."""
    lane = Lane(name, again={}, jobs={})
    for row in await store._read(f"d.{token(name)}.t"):
        lane.seq, note = int(row.headers["Nats-Sequence"]), msgspec.msgpack.decode(row.data)
        lane.fence, lane.worker, lane.until = note["fence"], note["worker"], note["until"]
        if note["op"] == "take":
            lines = await store._read(f"l.{token(name)}.*", lane.taken)
            fresh = {_line_id(x): int(x.headers["Nats-Sequence"]) for x in lines}
            lane.jobs[note["job"]] = {k: v for k, v in fresh.items() if v <= note["upto"]} | lane.again
            lane.taken, lane.again = note["upto"], {}
        elif note["op"] == "outcomes":
            _close(lane, note["job"], note["done"], note["again"])
    if lane.worker not in ("", worker) and lane.until > now:
        return None
    if lane.worker != worker:
        lane.fence, lane.worker = lane.fence + 1, worker
    lane.until = now + ttl
    return lane if await _note(store, lane, op="claim") else None


async def _note(store: NatsStore, lane: Lane, **note: Any) -> bool:
    note |= {"fence": lane.fence, "worker": lane.worker, "until": lane.until}
    said = await store._put(f"d.{token(lane.name)}.t", pack(note), lane.seq)
    lane.seq = max(said, lane.seq)
    return said > 0


def _line_id(row: Msg) -> str:
    return str(row.headers["Nats-Subject"].split(".")[2])


def _close(lane: Lane, job: str, done: list[str], again: list[str]) -> None:
    for id in again:
        lane.again[id] = lane.jobs[job].pop(id)
    for id in done:
        lane.jobs[job].pop(id, None)


async def take(store: NatsStore, lane: Lane, job: str, max_lines: int) -> int:
    """A job is all lines up to a place: one small message whatever their number. Put-backs go along."""
    rows = await store._read(f"l.{token(lane.name)}.*", lane.taken, max_lines - len(lane.again))
    lines = {_line_id(x): int(x.headers["Nats-Sequence"]) for x in rows}
    upto = max(lines.values(), default=lane.taken)
    if not (lines or lane.again) or not await _note(store, lane, op="take", job=job, upto=upto):
        return 0
    lane.jobs[job], lane.again, lane.taken = lines | lane.again, {}, upto
    return len(lane.jobs[job])


async def outcomes(store: NatsStore, lane: Lane, job: str, chunk: Sequence[LineOutcome]) -> list[str] | None:
    """Letters first, once each by the line's id; then one message that says so. A crash between repeats."""
    open_lines = lane.jobs[job]
    known = [o for o in chunk if o.id in open_lines]

    async def one(outcome: LineOutcome) -> None:
        _seq, data = await store._last(seq=open_lines[outcome.id])
        call = msgspec.msgpack.decode(data, type=Line).call
        mail = Mail(call.run, lane.name, 1, "result", "", outcome.value, outcome.error, call)
        await store._drop(mail, sender=outcome.id)

    await asyncio.gather(*(one(o) for o in known if not o.again))
    again = [o.id for o in known if o.again]
    done = [o.id for o in known if not o.again]
    unknown = [o.id for o in chunk if o.id not in open_lines]
    if not await _note(store, lane, op="outcomes", job=job, done=done, again=again):
        return None
    _close(lane, job, done, again)
    return unknown


def server(always: bool) -> Server:
    """A server of its own; `always`: each write is synced before it is acknowledged."""

    def command(dir: Path, port: int) -> list[str]:
        sync = "sync_interval: always" if always else ""
        text = f'host: "127.0.0.1"\nport: {port}\njetstream {{\n store_dir: "{dir}/js"\n {sync}\n}}\n'
        (dir / "nats.conf").write_text(text)
        return [str(Path(sys.prefix) / "bin" / "nats-server"), "-c", str(dir / "nats.conf")]

    return Server(command)


async def check(store: NatsStore, port: int) -> None:
    """The promises, one after the other. Leases and timers run on the server's clock, so this waits a little."""
    assert await store.create([new_run("a")]) == [True] and await store.create([new_run("a")]) == [False]
    passed("create is idempotent")

    other = NatsStore(port)
    await other.open()
    both = await asyncio.gather(store.claim(10), other.claim(10))
    assert sorted(map(len, both)) == [0, 1]
    winner, loser = (store, other) if both[0] else (other, store)
    old = winner.held["a"].hint
    assert await winner.commit(turn("a", 1, entries=b"row 1")) == "committed"
    for _ in range(4):
        await asyncio.sleep(0.5)
        await winner.renew("a")
        assert await loser.claim(10, 0.05) == []
    [hint] = await loser._hints("work", 10, 3)
    assert await loser._follow("a", [old]) is None
    raced = await asyncio.gather(*(s._follow("a", [hint]) for s in (store, other)))
    assert sorted(map(bool, raced)) == [False, True]  # the log takes one of them
    passed("of claimers that race one wins; a claim that is renewed is kept, a lapsed one is taken over")

    taker = next(s for s in (store, other) if s.held.get("a") and s.held["a"].fence == 2)
    stale = other if taker is store else store
    stale.held["a"] = Held(taker.held["a"].spec, 1, taker.held["a"].seq - 1, hint, 0, 0)
    assert await stale.commit(turn("a", 1, entries=b"stale")) == "fenced"
    assert await stale.commit(turn("a", 1, status="parked")) == "fenced"
    assert _fold(await store._read("r.a.>"))[3] == [b"row 1"]
    passed("a stale claim is fenced and writes nothing")

    assert await store.deliver([tell("a", "x", 1)]) == ["delivered"]
    assert await stale.claim(10) == []  # its hint is let go: the holder must see to it
    assert await taker.commit(turn("a", 2, status="parked", seen=0)) == "ready"
    [(_, fence, journal, letters)] = await store.claim(10)
    assert (fence, journal) == (3, [b"row 1"])
    passed("mail that comes while parking leaves the run ready")
    await check_races(store, other)

    wake, seen = time.time() + 1.2, letters[-1].id
    assert (
        await store.commit(turn("a", fence, consumed=[seen], status="parked", seen=seen, wake=wake))
        == "committed"
    )
    mail = [tell("a", "x", 1), tell("nobody", "x", 1)]
    assert await store.deliver(mail) == ["duplicate", "gone"]
    assert await store.claim(10) == []
    [(run, fence, *_)] = await store.claim(10, 3)
    assert run == "a" and time.time() >= wake
    await store.commit(turn("a", fence, status="parked", seen=seen))
    passed(
        f"double mail, also after it was consumed; mail to nobody; a timer ({time.time() - wake:.2f} s late)"
    )

    await store.create([new_run("b")])
    crashing_worker(__file__, port, "b")
    assert not await store.inbox("a")
    assert await other.relay() == 1
    assert [m.number for m in await store.inbox("a")] == [1, 2] and (await store.head("child"))[1] is not None
    _seq, head = await store.head("b")
    assert head and len(head.mail) == 3
    await store._hand_over("b", head, 0)
    assert (
        await store.relay() == 0 and len(await store.inbox("a")) == 2 and len(await store.inbox("child")) == 1
    )
    passed("a worker killed between commit and relay: another hands its outbox over; a second time is none")

    claims = {c[0]: c for c in await store.claim(10)}
    assert sorted(claims) == ["a", "child"]
    await store.commit(turn("child", claims["child"][1], status="done", value=b"42"))
    await asyncio.gather(store.relay(), other.relay())
    result = (await store.inbox("a"))[-1]
    assert (result.kind, result.value, result.call) == ("result", b"42", CallRef("a", "/", 7))
    assert await store.deliver([tell("child", "x", 9)]) == ["gone"]
    assert [_line_id(x) for x in await store._read("j.J.*")] == ["child"]
    passed("an end sends its result to the parent once, under two relays at once, and its place to the job")
    await check_lane(store, other)
    await other.close()


async def check_races(store: NatsStore, other: NatsStore) -> None:
    """Park 200 runs while another process sends them mail, or with wake-ups before, at and after the park."""
    await store.create([new_run(f"p{i}") for i in range(200)])
    claims = sorted(await store.claim(200))
    assert len(claims) == 200

    async def park(i: int) -> str:
        run, fence = claims[i][:2]
        wake = time.time() + (i - 120) / 2000 if i >= 100 else None
        return await store.commit(turn(run, fence, status="parked", wake=wake))

    sends = [other.deliver([tell(c[0], "z", 1)]) for c in claims[:100]]
    said = await asyncio.gather(*sends[:50], *map(park, range(200)), *sends[50:])
    early = said.count("ready")
    again: dict[str, int] = {}
    for _ in range(100):
        if len(again) == 200:
            break
        for run, fence, _journal, letters in await store.claim(200):
            again[run] = fence
            seen = letters[-1].id if letters else 0
            assert await store.commit(turn(run, fence, status="parked", seen=seen)) == "committed"
    assert len(again) == 200, sorted({c[0] for c in claims} - set(again))
    passed(f"200 parks against mail and timers, none forgotten ({early} saw it in time to stay ready)")


async def check_lane(store: NatsStore, other: NatsStore) -> None:
    """Lines go from runs to a job and come back as mail."""
    await store.create([new_run(f"l{i}") for i in range(10)])
    for run, fence, *_ in await store.claim(100):
        line = Line(f"line-{run}", "lane", CallRef(run, "/", 1), b'{"model":"m"}')
        await store.commit(turn(run, fence, lines=[line], status="parked"))
    await store.relay()
    lane = await drive(store, "lane", "w1", 30, 300)
    assert lane and lane.fence == 1 and await drive(other, "lane", "w2", 30, 310) is None
    assert await take(store, lane, "job1", 8) == 8
    ids = list(lane.jobs["job1"])
    chunk = [LineOutcome(id, "ok", b"{}") for id in ids[:7]] + [LineOutcome(ids[7], "error", again=True)]
    assert await outcomes(store, lane, "job1", [*chunk[:5], LineOutcome("strange", "ok")]) == ["strange"]
    lane = await drive(store, "lane", "w1", 30, 310)  # as after a crash: folded from its log
    assert lane and await outcomes(store, lane, "job1", chunk) == ids[:5]
    woken = {run: letters for run, _, _, letters in await store.claim(100)}
    assert sorted(woken) == sorted(id[5:] for id in ids[:7]) and all(len(m) == 1 for m in woken.values())
    after = await drive(other, "lane", "w2", 30, 400)
    assert after and after.fence == 2 and after.again
    assert await take(store, lane, "job2", 8) == 0 and await outcomes(store, lane, "job1", chunk[:0]) is None
    assert await take(other, after, "job2", 8) == 3
    passed("lines are taken once, outcomes reach their runs once, a lane's old driver is fenced")


async def crash(port: int, run: str) -> None:
    """Commit and die before the relay."""
    store = NatsStore(port)
    await store.open()
    [(claimed, fence, *_)] = await store.claim(10)
    assert claimed == run
    child = new_run("child", job="J", parent=CallRef("a", "/", 7))
    mail = [tell("a", run, 1), tell("a", run, 2), tell("child", run, 3)]
    assert await store.commit(turn(run, fence, outbox=mail, spawn=[child], status="parked")) == "committed"
    os.kill(os.getpid(), signal.SIGKILL)


async def survive(always: bool) -> None:
    """SIGKILL the server under load: every commit that was acknowledged must be there afterwards."""
    machine = server(always)
    store = NatsStore(machine.port, 30)
    await store.open()
    await store.create([new_run(f"r{i}") for i in range(50)])
    claimed = await store.claim(50, 2)
    acknowledged = {c[0]: 0 for c in claimed}

    async def work(run: str, fence: int) -> None:
        while await store.commit(turn(run, fence, entries=BODY)) == "committed":
            acknowledged[run] += 1

    tasks = [asyncio.ensure_future(work(c[0], c[1])) for c in claimed]
    await asyncio.sleep(1)
    machine.kill()
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.close()
    began = time.perf_counter()
    machine.start()
    again = NatsStore(machine.port, 30)
    await again.open()
    took = time.perf_counter() - began
    kept = await asyncio.gather(*(again._read(f"r.{run}.>") for run in acknowledged))
    missing = sum(max(0, n - len(_fold(k)[3])) for n, k in zip(acknowledged.values(), kept, strict=True))
    sync = "always" if always else "default"
    total = sum(acknowledged.values())
    print(
        f"  server killed, sync {sync}: {total:,} commits acknowledged, {missing} missing; up in {took:.2f} s"
    )
    assert total and not (always and missing)
    await again.close()
    machine.remove()


async def measure(always: bool) -> None:
    """Figures for one sync setting."""
    machine = server(always)
    store = NatsStore(machine.port, 300)
    await store.open()
    print(f"sync {'always' if always else 'default'}", flush=True)
    await rate_batches(store, [new_run(f"m{i}") for i in range(1000)])
    began = time.perf_counter()
    claimed: dict[str, int] = {}
    while len(claimed) < 1000:
        claimed |= {c[0]: c[1] for c in await store.claim(1000 - len(claimed), 1)}
    print(f"  claim of {len(claimed)} ready runs: {(time.perf_counter() - began) * 1000:.0f} ms")
    mine = list(claimed.items())

    def commit(i: int) -> Any:
        run, fence = mine[i % len(mine)]
        return lambda: store.commit(turn(run, fence, entries=BODY))

    scale = 1 if always else 2
    await rate("commits, one at a time", [commit(i) for i in range(600 * scale)], 1)
    await rate("commits, 100 at once", [commit(i) for i in range(3000 * scale)], 100)
    fresh = itertools.count(1)

    def mailing(i: int) -> Any:
        run, fence = mine[i % len(mine)]
        to = mine[(i + 1) % len(mine)][0]
        return lambda: store.commit(turn(run, fence, entries=BODY, outbox=[tell(to, run, next(fresh))]))

    began, count = time.perf_counter(), 1000 * scale
    work = [mailing(i) for i in range(count)]
    await rate("commits with one letter to another run, 100 at once, before relay", work, 100)
    relayed = 0
    while relayed < count:
        relayed += await store.relay(200, 1)
    print(f"  the same, relayed: {count / (time.perf_counter() - began):,.0f}/s", flush=True)

    for place in range(0, 2000, 200):
        lines = [Line(f"n{place + i}", "lane", CallRef(mine[i][0], "/", place), BODY) for i in range(200)]
        await asyncio.gather(*[store._put(f"l.lane.{x.id}", pack(x), 0) for x in lines])
    lane = await drive(store, "lane", "w", 300, 1)
    assert lane
    began = time.perf_counter()
    assert await take(store, lane, "big", 2000) == 2000
    took = time.perf_counter() - began
    began = time.perf_counter()
    for place in range(0, 2000, 1000):
        assert (
            await outcomes(
                store, lane, "big", [LineOutcome(f"n{place + i}", "ok", BODY) for i in range(1000)]
            )
            == []
        )
    print(
        f"  take of 2,000 lines: {took * 1000:.0f} ms; outcomes: {2000 / (time.perf_counter() - began):,.0f}/s"
    )

    await asyncio.gather(*[store.commit(turn(r, f, status="parked", seen=1 << 60)) for r, f in mine[:200]])
    runs = iter([(r, f) for r, f in mine[200:]])

    async def park() -> None:
        run, fence = next(runs)
        await store.commit(turn(run, fence, entries=BODY, status="parked", seen=1 << 60))

    await rate("parks (a read, a commit), 100 at once", [park] * 600, 100)
    await store.close()
    machine.remove()


async def rate_batches(store: NatsStore, runs: list[NewRun]) -> None:
    """Create by the hundred: a server stops listening to a client that overruns it."""
    for start in range(0, len(runs), 500):
        await store.create(runs[start : start + 500])


async def parked(count: int = 20_000, bodies: bool = True) -> None:
    """What a run that waits costs: its first record, the claim, a row."""
    machine = server(False)
    store = NatsStore(machine.port, 300)
    await store.open()
    memory, disk, began = machine.rss, machine.disk, time.perf_counter()
    done = 0
    for start in range(0, count, 500):
        await store.create([new_run(f"run-{start + i:08}", job="job") for i in range(500)])
        claims = await store.claim(500, 0.5)
        await asyncio.gather(*(store.commit(turn(c[0], c[1], entries=BODY, status="parked")) for c in claims))
        done += len(claims)
        if time.perf_counter() - began > 25:
            break
    await asyncio.sleep(3)
    state = (await store._api("STREAM.INFO.S", {}))["state"]
    print(f"{done:,} parked runs, a 600-byte row each, {state['num_subjects']:,} subjects")
    print(
        f"  memory {(machine.rss - memory) / done:,.0f} resident bytes a run; files {(machine.disk - disk) / done:,.0f}"
    )
    await store.close()
    machine.kill()
    began = time.perf_counter()
    machine.start()
    await (again := NatsStore(machine.port, 300)).open()
    took = time.perf_counter() - began
    await asyncio.sleep(1)
    print(f"  up again after SIGKILL in {took:.2f} s; memory then {(machine.rss - memory) / done:,.0f} a run")
    await again.close()
    machine.remove()


async def main() -> None:
    """Everything, in about a minute."""
    print("promises", flush=True)
    machine = server(True)
    store = NatsStore(machine.port)
    await store.open()
    await check(store, machine.port)
    await store.close()
    machine.remove()
    for always in (True, False):
        await survive(always)
        await measure(always)
    await parked()


if __name__ == "__main__":
    asyncio.run(crash(int(sys.argv[2]), sys.argv[3]) if sys.argv[1:2] == ["--crash"] else main())
