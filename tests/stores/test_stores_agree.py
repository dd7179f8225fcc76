"""Random work done on two stores gives the same results, whatever it is, and whichever of two processes does it."""

import random
from datetime import timedelta

import msgspec
import pytest

from segue.model.budget import Account, Amount, Limit, Reservation, Settlement
from segue.model.entry import Failure
from segue.model.lane import LIVE, Answer, Line, LineOutcome
from segue.model.message import ASKED_TO_END, CAUGHT_UP, PORT, DeadLetter, Mail, Question
from segue.model.mode import DROP, KEEP, Config
from segue.model.run import CallRef, Spec, Usage
from segue.ports.store import JobHead, Lease, NewRun, Turn
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.store_contract import acts
from segue.testing.store_contract.acts import pool

RUNS = [f"r{i}" for i in range(14)]
WORKERS = ["w", "v"]
PORTS = [PORT + worker for worker in WORKERS]
LANES = ["x|u|e|m|k", "y|u|e|m|k"]
ACCOUNTS = [
    Account("job:j", Limit(300)),
    Account("run:a", Limit(120, 12)),
    Account("store", Limit(tokens=40)),
]
ENDS = ["done", "failed", "cancelled"]
KINDS = [(), "g", ["f\n\n2"]]  #: what is left to others: targets, or the code of one


class Work:
    """Draws operations, most of what is there by a look before; each is a method's name, arguments and keywords."""

    def __init__(self, seed, sharing=False):
        self.sharing = sharing  # lines ask the same as others, and may be late
        self.random = random.Random(seed)
        self.now = 1000.0
        self.heads = {}
        self.held = {}  #: fences of claims, as far as they are known; may be stale
        self.letters = {}  #: how many each run has in its inbox
        self.taken = {}  #: lines of jobs that are open
        self.lanes = {}  #: of all jobs
        self.waiting = []  #: lanes in which lines wait
        self.due = []  #: those in which some may be late, and when
        self.asks = []
        self.dead = []
        self.lane_fences = {}
        self.number = 0
        self.lines = []
        self.open = []  #: those that are to have an outcome

    async def look(self, store):
        self.heads = {head.id: head for head in await store.runs()}
        self.letters = {run: len(await store.inbox(run, 0)) for run in self.heads}
        self.lanes = {job.id: job.lane for job in await store.batch_jobs(open_only=False)}
        there = [
            (job.id, await store.job_lines(job.id, "", 100, bodies=False)) for job in await store.batch_jobs()
        ]
        self.taken = {job: [line.id for line in lines] for job, lines in there}
        self.waiting = [lane.lane for lane in await store.lanes() if lane.waiting]
        self.due = [(lane.lane, lane.due) for lane in await store.lanes() if lane.due]
        self.open = await store.open_lines(sorted(set(self.lines)))
        self.asks = [ask.id for ask in await store.asks()]
        self.dead = [letter.id for letter in await store.dead_letters()]

    def draw(self):
        self.now += self.random.choice([0.0, 0.25, 1.5, 20.0])
        name = self.verb()
        return name, *getattr(self, name)()

    def verb(self):
        """Mostly one for which there is something to do."""
        there = {
            "commit": self.held, "land": self.held, "append": self.held, "renew": self.held, "outcomes": self.taken,
            "put_batch_job": self.taken, "take": self.waiting, "promote": self.due, "answer": self.asks,
            "resend_dead": self.dead, "drop_dead": self.dead,
        }  # fmt: skip
        while True:
            name = self._verb()
            if there.get(name, True) or self.random.random() < 0.05:
                return name

    def _verb(self):
        verbs = (
            ["commit"] * 12 + ["claim"] * 3 + ["create"] * 3 + ["outcomes"] * 3 + ["take"] * 2 + ["reserve"] * 4
            + ["claim_lane", "revive", "revive", "put_batch_job", "remove", "bury", "reopen"]
        )  # fmt: skip
        if self.sharing:
            more = (
                ["outcomes"] * 5 + ["take"] * 2 + ["withdraw"] * 4 + ["promote"] * 4 + ["forget"] + ["claim_lane"] * 2
            )  # fmt: skip
        else:
            more = (
                ["deliver"] * 3 + ["answer"] * 2 + ["append"] * 2 + ["land"] * 2 + ["resend_dead"] * 2
                + ["drop_dead", "renew", "put_job", "remove_job", "sweep", "fund", "strike", "clear"]
            )  # fmt: skip
        return self.random.choice(verbs + more)

    def some(self, items, most=3):
        items = sorted(items) if isinstance(items, set) else list(items)
        return self.random.sample(items, min(len(items), self.random.randint(0, most)))

    def run(self, *status):
        """Any; mostly one in such a status, where there is one."""
        return self.most([head.id for head in self.heads.values() if head.status in status], RUNS)

    def most(self, such, any):
        return self.random.choice([*such] if such and self.random.random() < 0.9 else any)

    def fence_of(self, run):
        return self.held.get(run, 1) - (self.random.random() < 0.05)

    def maybe(self, make, chance=0.3):
        return make() if self.random.random() < chance else None

    def create(self):
        new = [self.new() for _ in range(self.random.randint(1, 3))]
        worker = self.random.choice(["", "w"])
        return (new,), {"now": self.now, "worker": worker, "ttl": 30.0 if worker else 0.0}

    def new(self, *parents):
        priority = self.random.choice([0, 0, 0, 3])
        spec = Spec(
            "flow",
            self.random.choice("fg"),
            b"[[%s],{}]" % self.large(),
            config=Config(priority=priority, accounts=tuple(self.some(ACCOUNTS, 1))),
            parent=self.maybe(lambda: CallRef(self.random.choice([*parents, "nobody"]), "0", 1), 0.4),
            job=self.random.choice(["", "j", "k"]),
            version=self.random.choice(["", "2"]),
            mailbox=self.random.choice([0, 0, 1, 2]),
            full=self.random.choice(["wait", "drop", "fail"]),
            history=self.random.choice([None, KEEP, DROP, timedelta(seconds=9)]),
        )
        return NewRun(self.run(), spec, pool=self.maybe(lambda: pool(self.large()), 0.1))

    def large(self):
        """A content, mostly small."""
        return b"%d" % self.random.randint(1, 4) * self.random.choice([1, 1, 1, 5000])

    def claim(self):
        worker, ttl = self.random.choice(WORKERS), self.random.choice([5.0, 60.0])
        limit, lapsed = self.random.choice([1, 3, 100]), self.random.random() < 0.8
        return (worker, limit, ttl), {"now": self.now, "but": self.random.choice(KINDS), "lapsed": lapsed}

    def bury(self):
        return (self.some(WORKERS, 2),), {}

    def strike(self):
        """Workers die of runs, again and again."""
        return (self.random.randint(1, 12), self.random.choice([1, 3, 100])), {"now": self.now}

    def clear(self):
        return (self.random.choice(PORTS), self.random.randint(1, 9)), {}

    def reopen(self):
        return (), {}

    def sweep(self):
        return (), {"now": self.now, "limit": 100}

    def renew(self):
        leases = [Lease(run, self.fence_of(run)) for run in self.some(self.held, 5)]
        return (self.random.choice(WORKERS), leases, 30.0), {"now": self.now}

    def commit(self):
        """One turn of any kind, or several that can't meet: what such do to each other may come in any order."""
        if self.random.random() < 0.7:
            return ([self.turn(self.most(self.held, RUNS))],), {}
        return ([self.plain_turn(run) for run in self.some(self.held or RUNS, 4)],), {}

    def land(self):
        return ([self.turn(self.most(self.held, RUNS))],), {}

    def append(self):
        rows = [(run, self.fence_of(run), b"row of %d" % self.number) for run in self.some(self.held, 4)]
        return (rows,), {}

    def remove(self):
        return ([self.run(*ENDS) for _ in range(self.random.randint(0, 2))],), {}

    def remove_job(self):
        return (self.random.choice("jk"),), {}

    def plain_turn(self, run):
        self.number += 1
        number = self.number
        status = self.random.choice(["ready"] * 4 + ["parked"] * 2)
        return Turn(
            run=run,
            fence=self.fence_of(run),
            entries=self.maybe(lambda: b"row%d" % number, 0.8),
            status=status,
            now=self.now,
            seen=self.letters.get(run, 0) if self.random.random() < 0.7 else 0,
        )

    def turn(self, run):
        turn = self.plain_turn(run)
        if self.random.random() < 0.2:
            return turn
        number, letters = self.number, range(self.letters.get(run, 0))
        turn.status = self.random.choice(["ready"] * 6 + ["parked"] * 5 + ["held"] + ENDS)
        turn.checkpoint = self.maybe(lambda: b"state%d" % number)
        turn.delta = self.maybe(lambda: b"delta%d" % number)
        turn.replaces = self.random.choice([0, 0, 1, 1, 2, 5])
        turn.consumed = self.some(letters)
        turn.kept = self.some(letters, 1)
        to = self.random.choices([*RUNS, *PORTS], k=2)
        turn.outbox = [self.mail(to[i], run, number + i) for i in range(self.random.randint(0, 2))]
        turn.dead = [DeadLetter(mail, "no") for mail in self.some(turn.outbox, 1)]
        known = set(self.lines)
        turn.lines = [self.line(run) for _ in range(self.random.randint(0, 5 if self.sharing else 3))]
        if self.sharing:
            turn.lines = list({line.id: line for line in turn.lines}.values())
            if not known.isdisjoint(line.id for line in turn.lines):
                turn.lines = turn.lines[:1]  # of some that come anew, any may be the one that others follow
            turn.withdrawn = self.some(self.open, 1)
            turn.answers = [Answer(same, b"%d" % number * 3000, self.now) for same in self.some("abccccc", 1)]
        turn.asks = [
            Question(f"{run}-q{i}", run, "0", i, "?", self.large(), to=self.random.choice(["ann", ""]))
            for i in self.some(range(4), 1)
        ]
        turn.closed_asks = [f"{run}-q{i}" for i in self.some(range(4), 1)]
        turn.spawn = [self.new(run) for _ in self.some([1], 1)]
        blobs = [(b"d%d" % i, b"content of %d" % i) for i in self.some(range(9), 2)]
        turn.blobs = blobs if turn.entries is not None else []
        turn.release = self.random.random() < 0.2
        turn.wake = self.maybe(lambda: self.now + self.random.choice([-1.0, 3.5, 40.0]), 0.5)
        turn.reason = self.random.choice(["", "why"])
        turn.value = self.maybe(self.large)
        turn.error = self.maybe(lambda: Failure("m:E", "no"), 0.2)
        turn.usage = self.maybe(lambda: [Usage("m", "live", number)])
        turn.settled = [
            Settlement(f"{run}-{i}", Amount(self.random.randint(0, 70), i)) for i in self.some(range(20))
        ]
        turn.wants = [f"{run}-{i}" for i in self.some(range(20), 1)]
        return turn

    def reserve(self):
        """Of calls whose lines may be there or come yet."""
        wanted = []
        for run in self.some([*RUNS, "nobody"], 6):
            own = [Account(id, Limit(tokens=9)) for id in accounts_of(run)]
            accounts = self.random.sample([*ACCOUNTS, *own], self.random.randint(1, 3))
            amount = Amount(self.random.randint(0, 60), self.random.randint(0, 5))
            wanted.append(Reservation(f"{run}-{self.random.randint(0, 20)}", run, tuple(accounts), amount))
        return (wanted,), {"now": self.now}

    def fund(self):
        limit = Limit(self.random.choice([None, 90, 400, 2000]), self.random.choice([None, 9, 60, 500]))
        raising = self.random.random() < 0.5
        account = self.random.choice([one.id for one in ACCOUNTS] * 3 + accounts_of(self.run()))
        return (account, limit), {"raising": raising, "now": self.now}

    def mail(self, to, sender, number):
        """Of any kind."""
        kind = self.random.choice(
            ["tell"] * 4
            + ["request"] * 3
            + ["urgent", "event", "subscribe", "result", "unsubscribe", "cancel"]
        )
        asks = kind in ("request", "subscribe")
        names = {"request": ["", "", CAUGHT_UP], "tell": ["", "", ASKED_TO_END]}
        return Mail(
            to,
            sender,
            number,
            kind,
            self.random.choice(names.get(kind, [""])),
            call=CallRef(to, "", 1) if kind == "result" else None,
            reply=CallRef(self.random.choice([sender, *PORTS]), "", number) if asks else None,
            since=self.random.choice([0, 0, 7]),
            used=Usage("m", "batch", number) if kind == "result" else None,
            at=self.now,
            due=self.random.choice([0.0, 0.0, self.now + 9.0]),
            every=self.random.choice([0.0, 0.0, 7.0]),
            key="s" if kind in ("subscribe", "event") else "",
            tag=self.random.choice(["", "s"]) if kind == "subscribe" else "",
            forwarded=kind == "request" and self.random.random() < 0.3,
        )

    def resend_dead(self):
        return (self.random.choice([*self.dead, 1]),), {"now": self.now}

    def drop_dead(self):
        return (self.some([*self.dead, 1]),), {}

    def line(self, run):
        id = f"{run}-{self.random.randint(0, 20)}"
        self.lines.append(id)
        lane = LANES[len(run) % 2]
        call = CallRef(run, "", self.number)
        if not self.sharing:
            return Line(id, lane, call, b"x" * self.random.randint(1, 30), 0, self.now)
        same = self.random.choice(["", "a", "a", "a", "a", "b", "c"])
        return Line(
            id,
            lane,
            call,
            f"body {same or id}".encode(),
            0,
            self.now,
            due=self.random.choice([0.0, 0.0, self.now + 9.0, self.now + 90.0]),
            late=self.random.choice(["live", "live", "fail"]),
            same=same,
            since=self.random.choice([0.0, self.now - 30.0, self.now, self.now]),
        )

    def withdraw(self):
        return (self.some({*self.open, *self.lines[-2:]}),), {"now": self.now}

    def forget(self):
        return (), {"before": self.now - self.random.choice([0.0, 20.0, 100.0])}

    def promote(self):
        lane, due = self.random.choice([*self.due, (LANES[0], self.now)])
        by = self.random.choice([self.now, self.now + 10.0, due, due + 10.0])
        most = self.random.choice([2, 5])
        return (lane, self.fence(lane)), {
            "by": by,
            "max_lines": most,
            "job": f"L{self.number}",
            "now": self.now,
        }

    def deliver(self):
        mail = []
        for to in self.some([*RUNS, *PORTS, "nobody"], 4):
            self.number += 1
            sender = self.random.choice(["ann", "bob"])
            mail.append(self.mail(to, sender, self.number - self.random.choice([0, 0, 0, 40])))
        return (mail,), {"now": self.now}

    def answer(self):
        return (self.random.choice([*self.asks, f"{self.run()}-q1"]), b"%d" % self.number), {"now": self.now}

    def revive(self):
        run, status = self.run("held", *ENDS), ["held", *ENDS, *self.some(["parked", "ready"], 1)]
        others = [other for other in self.some(RUNS, 2) if other != run]
        return (run,), {
            "pool": self.maybe(lambda: pool(self.large())),
            "now": self.now,
            "status": status,
            "config": self.maybe(lambda: Config(priority=self.random.choice([0, 5]))),
            "along": {other: pool(self.large()) for other in others},
            "lines": self.some([id for id in (self.open or self.lines) if id.startswith(f"{run}-")], 1),
        }

    def put_job(self):
        return (JobHead(self.random.choice("jk"), "f", self.now, self.maybe(lambda: self.number)),), {}

    def claim_lane(self):
        return (self.random.choice(LANES), self.random.choice(WORKERS), 30.0), {"now": self.now}

    def fence(self, lane):
        return self.lane_fences.get(lane, 1)

    def job(self):
        """Mostly one that is open."""
        return self.random.choice([*self.taken] * 5 + [*self.lanes, "B0"])

    def take(self):
        lane = self.most(self.waiting, LANES)
        most = {"max_lines": self.random.randint(1, 9), "max_bytes": self.random.randint(1, 200)}
        late_by = self.random.choice([0.0, self.now, self.now + 30.0])
        job = self.random.choice([f"B{self.number}"] * 5 + [*self.lanes])
        keywords = {**most, "job": job, "nonce": "n", "now": self.now, "late_by": late_by}
        return (lane, self.fence(lane)), keywords

    def outcomes(self):
        again, job = self.random.random() < 0.3, self.job()
        some = self.some([*self.taken.get(job, ()), self.random.choice([*self.lines, "nothing"])], 4)
        statuses = self.random.choices(["ok", "ok", "expired", "error", "missing"], k=4)
        chunk = [self.outcome(id, status, again) for id, status in zip(some, statuses, strict=False)]
        fence = self.fence(self.lanes.get(job, LANES[0])) - (self.random.random() < 0.05)
        return (job, fence, chunk), {"now": self.now}

    def outcome(self, id, status, again):
        failure = None if status == "ok" else Failure("m:E", status)
        free, most = self.random.random() < 0.3, self.random.choice([0, 2, 3])
        paid = self.maybe(lambda: Amount(self.random.randint(1, 70), 1), 0.6)
        if again and status != "ok":
            return LineOutcome(id, status, None, failure, again=True, free=free, most=most)
        whole = self.sharing and status == "ok" and self.random.random() < 0.2
        used = Usage("m", "batch", self.number) if status == "ok" else None
        return LineOutcome(id, status, b"1", failure, used=used, lane="batch", whole=whole, paid=paid)

    def put_batch_job(self):
        state = self.random.choice(["uploaded", "sent", "closed"])
        job = self.job()
        return (job, self.fence(self.lanes.get(job, LANES[0])), state), {"now": self.now}

    def learn(self, name, args, keywords, result):
        """What workers and drivers know."""
        if name in ("claim", "strike"):
            self.held.update({run.head.id: run.head.fence for run in result})
        elif name == "create" and keywords.get("worker"):
            self.held.update({made.head.id: made.head.fence for made in result if made.new})
        elif name in ("commit", "land"):
            for turn, came in zip(args[0], result, strict=True):
                if came != "committed" or turn.release or turn.status != "ready":
                    self.held.pop(turn.run, None)
        elif name == "claim_lane" and result is not None:
            self.lane_fences[args[0]] = result


def accounts_of(run):
    return [f"run:{run}", f"block:{run} 0.1"]


class Side:
    """A store; or some, over one file. Letters are numbered by each as it likes: they are told by their place."""

    def __init__(self, *stores):
        self.stores = stores
        self.holders = {}  #: in which of two processes each run was claimed last

    def of(self, which):
        return self.stores[which % len(self.stores)]

    async def act(self, which, name, args, keywords):
        store, self.which = self.of(which), which
        if name in OWN:
            return await getattr(self, name)(store, *args, **keywords)
        done = await getattr(store, name)(*args, **keywords)
        return None if name == "sweep" else done  # what a store looked at is its own business

    async def create(self, store, new, **keywords):
        made = await store.create(new, **keywords)
        if keywords.get("worker"):
            self.holders.update({one.head.id: self.which for one in made if one.new})
        return made

    async def reserve(self, store, wanted, now):
        made = [await self.of(self.holders.get(one.run, 0)).reserve([one], now=now) for one in wanted]
        return [came for (came,) in made]

    async def append(self, store, rows):
        return await self.each_where_it_is_held([row[0] for row in rows], rows, acts.append)

    async def land(self, store, turns):
        return await self.each_where_it_is_held([turn.run for turn in turns], turns, self.do_land)

    async def commit(self, store, turns):
        return await self.each_where_it_is_held([turn.run for turn in turns], turns, self.do_commit)

    async def do_land(self, store, turns):
        return await acts.land(store, [await self.own(store, turn) for turn in turns])

    async def do_commit(self, store, turns):
        return await store.commit([await self.own(store, turn) for turn in turns])

    async def each_where_it_is_held(self, runs, items, do):
        """A worker is in one process."""
        results = {}
        for which in (0, 1):
            mine = [run for run in runs if self.holders.get(run, 0) == which]
            done = await do(
                self.of(which), [item for run, item in zip(runs, items, strict=True) if run in mine]
            )
            results.update(zip(mine, done, strict=True))
        return [results[run] for run in runs]

    async def own(self, store, turn):
        """A turn with the numbers of letters as they are here."""
        ids = [letter.id for letter in await store.inbox(turn.run, 0)]
        consumed, kept = [[ids[n] for n in each] for each in (turn.consumed, turn.kept)]
        seen = ids[turn.seen - 1] if turn.seen else 0
        return msgspec.structs.replace(turn, consumed=consumed, kept=kept, seen=seen)

    async def claim(self, store, worker, limit, ttl, **keywords):
        """The first ones, then the rest: of those that are due, a store may say so before they are claimed."""
        found = await store.claim(worker, limit, ttl, **keywords)
        found += await store.claim(worker, 100, ttl, **keywords)
        self.holders.update({run.head.id: self.which for run in found})
        return [msgspec.structs.replace(run, inbox=bare(run.inbox)) for run in found]

    async def strike(self, store, times, limit, now):
        found = []
        for _ in range(times):
            await store.bury(WORKERS)
            found += await self.claim(store, "w", limit, 9.0, now=now)
        return found

    async def clear(self, store, port, n):
        came = (await store.letters({port: 0})).get(port, [])
        if came:
            await store.clear(port, came[:n][-1].id)
        return len(came)

    async def reopen(self, store):
        if isinstance(store, SqliteStore):
            await store.close()
            await store.open()

    async def put_batch_job(self, store, id, fence, state, now):
        jobs = {job.id: job for job in await store.batch_jobs(open_only=False)}
        if id not in jobs or jobs[id].state == "closed":
            return None
        job = jobs[id]
        if state == "closed":
            live = [one.id for one in jobs.values() if one.remote == LIVE and one.id != id]
            beside = {line.id for one in live for line in await store.job_lines(one, "", 100)}
            if any(line.id not in beside for line in await store.job_lines(id, "", 100)):
                return None
            return await store.put_batch_job(msgspec.structs.replace(job, state=state, over=now), fence)
        if job.remote == LIVE:
            return None
        return await store.put_batch_job(msgspec.structs.replace(job, state=state, sent=now), fence)


OWN = ("append", "claim", "clear", "commit", "create", "land", "put_batch_job", "reopen", "reserve", "strike")


def bare(letters):
    return [(letter.mail, letter.kept) for letter in letters]


async def pages(page, limit=4):
    """All that a list has, by pages."""
    out, before = [], 0
    while True:
        some, before = await page(before, limit)
        out += some
        if not some:
            return out


async def newer(store, addresses):
    """What came to those after the first letter of each, and all that lies there."""
    there = await store.letters(dict.fromkeys(addresses, 0))
    later = await store.letters({address: letters[0].id for address, letters in there.items()})
    return [{address: bare(letters) for address, letters in each.items()} for each in (there, later)]


async def everything(store, now):
    """All that can be seen from outside."""
    jobs = await store.batch_jobs(open_only=False)
    loaded = [await store.load(run) for run in RUNS]
    ids = [f"{run}-{n}" for run in RUNS for n in range(21)]
    of_jobs = ["", *[job.id for job in jobs]]
    return {
        "runs": [run and msgspec.structs.replace(run, inbox=bare(run.inbox)) for run in loaded],
        "heads": [await store.get(run) for run in RUNS],
        "history": [await store.history(run, rows=rows) for run in RUNS for rows in (True, False)],
        "inboxes": [bare(await store.inbox(run, 0)) for run in RUNS],
        "letters": await newer(store, [*RUNS, *PORTS]),
        "listed": await store.runs(),
        "ids": [await store.ids(after=after, limit=3) for after in ("", "r11", "r2")],
        "newest": [
            await pages(lambda at, most, which=which: store.newest(before=at, limit=most, **which))
            for job in (None, "", "j")
            for status in ((), ["ready", "done"], ["held", "failed"], ["parked"])
            for which in [{"job": job, "status": status}]
        ],
        "children": [(await store.newest(parent=run))[0] for run in RUNS],
        "run counts": await store.run_counts(),
        "removable": await store.removable([*RUNS, "nobody"]),
        "workers": await store.workers(),
        "finished": [await store.finished(job, after, 5) for job in "jk" for after in (0, 3, 9)],
        "jobs": await store.list_jobs(),
        "job": await store.get_job("j"),
        "asks": [await store.asks(to=to) for to in ("", "ann")],
        "asks of": [await store.asks(run=run) for run in RUNS],
        "asked": [
            await pages(lambda at, most, to=to: store.asked(at, to=to, limit=most)) for to in ("", "ann")
        ],
        "ask": [await store.get_ask(f"{run}-q{i}") for run in RUNS for i in range(5)],
        "blobs": await store.get_blobs([b"d%d" % i for i in range(10)]),
        "lanes": await store.lanes(),
        "batches": jobs,
        "open batches": [
            await store.batch_jobs(lane=lane, open_only=open_only, newest=newest)
            for lane in ("", LANES[0])
            for open_only in (True, False)
            for newest in (0, 2)
        ],
        "lines": [
            await store.job_lines(job, after, most, bodies=bodies)
            for job in of_jobs
            for after, most, bodies in (("", 100, True), ("r3-5", 3, True))
        ],
        "all lines": [
            [line.id for line in await store.job_lines(job, "", 100, bodies=False)] for job in of_jobs
        ],
        "bodies": [await store.job_bodies(job, after, 9) for job in of_jobs for after in ("", "r3-5")],
        "open lines": sorted(await store.open_lines(ids)),
        "open": await store.line_counts(open_only=True),
        "counts": [
            await store.line_counts(job=job, open_only=some) for job in of_jobs for some in (True, False)
        ],
        "backlog": [await store.backlog(now=now, but=but) for but in KINDS],
        "answers": await store.answers("abc"),
        "unclaimed": [
            sorted(await store.unclaimed(run=run, job=job), key=repr)
            for run, job in [("", ""), ("", "j"), ("", "none"), *[(run, "") for run in RUNS]]
        ],
        "dead": await store.dead_letters(),
        "budgets": await store.budgets(),
        "some budgets": await store.budgets(["store", "none", "job:j"]),
        "reserved": [await store.reserved(job.id) for job in jobs],
        "dead of": [await store.dead_letters(run=run, after=3, limit=4) for run in RUNS],
    }


@pytest.mark.parametrize("seed", range(8))
async def test_memory_and_sqlite_agree_on_lines_that_ask_the_same(tmp_path, seed):
    await agree(tmp_path, Work(seed, sharing=True))


@pytest.mark.parametrize("seed", range(8))
async def test_memory_and_sqlite_agree(tmp_path, seed):
    await agree(tmp_path, Work(seed))


async def agree(tmp_path, work):
    memory, file = sides = (
        Side(MemoryStore()),
        Side(*[SqliteStore(str(tmp_path / "runs.db")) for _ in range(2)]),
    )
    for store in (*memory.stores, *file.stores):
        await store.open()
    for step in range(250):
        await work.look(*memory.stores)
        name, args, keywords = work.draw() if step else ("create", ([work.new()],), {"now": 0.0})
        which = work.random.randrange(2)
        one, two = [await side.act(which, name, args, keywords) for side in sides]
        assert one == two, f"step {step}: {name}{args}{keywords}"
        work.learn(name, args, keywords, one)
        if step % 10 == 9:
            for one, two in zip(
                *[(await everything(side.of(which), work.now)).items() for side in sides],
                strict=True,
            ):
                assert one == two, f"after step {step}: {name}{args}{keywords}"
    for store in (*memory.stores, *file.stores):
        await store.close()
