"""Random work done on two stores gives the same results, whatever it is, and whichever of two processes does it."""

import random
from datetime import timedelta

import pytest

from segue.model.budget import Account, Amount, Limit, Reservation, Settlement
from segue.model.entry import Failure
from segue.model.lane import Answer, Line, LineOutcome
from segue.model.message import DeadLetter, Mail, Question
from segue.model.mode import DROP, KEEP, Config
from segue.model.run import CallRef, Spec, Usage
from segue.ports.store import JobHead, Lease, NewRun, Turn
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.store_contract import acts
from segue.testing.store_contract.acts import pool

RUNS = [f"r{i}" for i in range(14)]
LANES = ["x|u|e|m|k", "y|u|e|m|k"]
ACCOUNTS = [
    Account("job:j", Limit(300)),
    Account("run:a", Limit(120, 12)),
    Account("store", Limit(tokens=40)),
]
ENDS = ["done", "failed", "cancelled"]


class Work:
    """Draws operations; each is a method's name, arguments and keywords."""

    def __init__(self, seed, sharing=False):
        self.sharing = sharing  # lines ask the same as others, and may be late
        self.random = random.Random(seed)
        self.now = 1000.0
        self.fences = {}  #: what was said of each run last; may be stale
        self.lane_fences = {}
        self.letters = {}
        self.number = 0
        self.lines = []

    def draw(self):
        self.now += self.random.choice([0.0, 0.25, 1.5, 20.0])
        name = self.random.choice(
            ["commit"] * 12 + ["claim"] * 3 + ["create"] * 3 + ["deliver"] * 3 + ["outcomes"] * 3
            + ["take"] * 2 + ["claim_lane", "renew", "answer", "answer", "revive", "revive", "put_job"]
            + ["put_batch_job", "resend_dead", "resend_dead", "drop_dead", "sweep"] + ["reserve"] * 4 + ["fund"]
            + ["append", "append", "land", "land", "remove", "remove_job"]
            + (["withdraw"] * 3 + ["promote"] * 2 + ["forget"] + ["outcomes"] * 3 + ["take"] if self.sharing else [])
        )  # fmt: skip
        return name, *getattr(self, name)()

    def some(self, items, most=3):
        items = list(items)
        return self.random.sample(items, min(len(items), self.random.randint(0, most)))

    def run(self):
        return self.random.choice(RUNS)

    def maybe(self, make, chance=0.3):
        return make() if self.random.random() < chance else None

    def create(self):
        new = [self.new() for _ in range(self.random.randint(1, 3))]
        worker = self.random.choice(["", "w"])
        return (new,), {"now": self.now, "worker": worker, "ttl": 30.0 if worker else 0.0}

    def new(self):
        priority = self.random.choice([0, 0, 0, 3])
        spec = Spec(
            "flow",
            self.random.choice("fg"),
            b"[[%s],{}]" % self.large(),
            config=Config(priority=priority),
            parent=self.maybe(lambda: CallRef(self.run(), "0", 1)),
            job=self.random.choice(["", "j", "k"]),
            mailbox=self.random.choice([0, 0, 1, 2]),
            full=self.random.choice(["wait", "drop", "fail"]),
            history=self.random.choice([None, KEEP, DROP, timedelta(seconds=9)]),
        )
        return NewRun(self.run(), spec, pool=self.maybe(lambda: pool(self.large()), 0.1))

    def large(self):
        """A content, mostly small."""
        return b"%d" % self.random.randint(1, 4) * self.random.choice([1, 1, 1, 5000])

    def claim(self):
        worker, ttl = self.random.choice(["w", "v"]), self.random.choice([5.0, 60.0])
        return (worker, 100, ttl), {"now": self.now, "but": self.random.choice([(), (), "g"])}

    def sweep(self):
        return (), {"now": self.now, "limit": 100}

    def renew(self):
        leases = [Lease(run, self.fences.get(run, 1)) for run in self.some(RUNS, 5)]
        return (self.random.choice(["w", "v"]), leases, 30.0), {"now": self.now}

    def commit(self):
        """One turn of any kind, or several that can't meet: what such do to each other may come in any order."""
        if self.random.random() < 0.7:
            return ([self.turn(self.run())],), {}
        return ([self.plain_turn(run) for run in self.some(RUNS, 4)],), {}

    def land(self):
        return ([self.plain_turn(run) for run in self.some(RUNS, 4)],), {}

    def append(self):
        rows = [(run, self.fences.get(run, 1), b"row of %d" % self.number) for run in self.some(RUNS, 4)]
        return (rows,), {}

    def remove(self):
        return (self.some(RUNS, 2),), {}

    def remove_job(self):
        return (self.random.choice("jk"),), {}

    def plain_turn(self, run):
        self.number += 1
        number = self.number
        status = self.random.choice(["ready"] * 4 + ["parked"] * 2)
        letters = self.letters.get(run, [])
        return Turn(
            run=run,
            fence=self.fences.get(run, 1),
            entries=self.maybe(lambda: b"row%d" % number, 0.8),
            status=status,
            now=self.now,
            seen=max(letters, default=0) if self.random.random() < 0.7 else 0,
        )

    def turn(self, run):
        turn = self.plain_turn(run)
        if self.random.random() < 0.2:
            return turn
        number, letters = self.number, self.letters.get(run, [])
        turn.status = self.random.choice(["ready"] * 6 + ["parked"] * 5 + ["held"] + ENDS)
        turn.checkpoint = self.maybe(lambda: b"state%d" % number)
        turn.delta = self.maybe(lambda: b"delta%d" % number)
        turn.replaces = self.random.choice([0, 0, 1, 1, 2, 5])
        turn.consumed = self.some(letters)
        turn.kept = self.some(letters, 1)
        turn.outbox = [self.mail(self.run(), run, number + i) for i in range(self.random.randint(0, 2))]
        turn.dead = [DeadLetter(mail, "no") for mail in self.some(turn.outbox, 1)]
        turn.lines = [self.line(run) for _ in range(self.random.randint(0, 3))]
        if self.sharing:
            turn.lines = list({line.id: line for line in turn.lines}.values())
            turn.withdrawn = self.some(sorted(set(self.lines)), 2)
            turn.answers = [Answer(same, b"%d" % number * 3000, self.now) for same in self.some("abc", 1)]
        turn.asks = [
            Question(f"{run}-q{i}", run, "0", i, "?", self.large(), to="ann") for i in self.some(range(4), 1)
        ]
        turn.closed_asks = [f"{run}-q{i}" for i in self.some(range(4), 1)]
        turn.spawn = [self.new() for _ in self.some([1], 1)]
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
            accounts = self.random.sample(ACCOUNTS, self.random.randint(1, 3))
            amount = Amount(self.random.randint(0, 60), self.random.randint(0, 5))
            wanted.append(Reservation(f"{run}-{self.random.randint(0, 20)}", run, tuple(accounts), amount))
        return (wanted,), {"now": self.now}

    def fund(self):
        limit = Limit(self.random.choice([None, 90, 400, 2000]), self.random.choice([None, 9, 60, 500]))
        raising = self.random.random() < 0.5
        return (self.random.choice(ACCOUNTS).id, limit), {"raising": raising, "now": self.now}

    def mail(self, to, sender, number):
        """Of any kind."""
        kind = self.random.choice(["tell"] * 4 + ["request"] * 3 + ["event", "subscribe", "result"])
        asks = kind in ("request", "subscribe")
        return Mail(
            to,
            sender,
            number,
            kind,
            call=CallRef(to, "", 1) if kind == "result" else None,
            reply=CallRef(sender, "", number) if asks else None,
            at=self.now,
            due=self.random.choice([0.0, 0.0, self.now + 9.0]),
            every=self.random.choice([0.0, 0.0, 7.0]),
            key="s" if kind in ("subscribe", "event") else "",
            tag=self.random.choice(["", "s"]) if kind == "subscribe" else "",
            forwarded=kind == "request" and self.random.random() < 0.3,
        )

    def resend_dead(self):
        return (self.random.randint(1, 30),), {"now": self.now}

    def drop_dead(self):
        return (self.some(range(1, 60)),), {}

    def line(self, run):
        id = f"{run}-{self.random.randint(0, 20)}"
        self.lines.append(id)
        lane = LANES[len(run) % 2]
        call = CallRef(run, "", self.number)
        if not self.sharing:
            return Line(id, lane, call, b"x" * self.random.randint(1, 30), 0, self.now)
        same = self.random.choice(["", "a", "a", "b", "c"])
        return Line(
            id,
            lane,
            call,
            f"body {same or id}".encode(),
            0,
            self.now,
            due=self.random.choice([0.0, 0.0, self.now + 9.0, self.now + 90.0]),
            late=self.random.choice(["live", "fail"]),
            same=same,
            since=self.random.choice([0.0, self.now - 30.0, self.now]),
        )

    def withdraw(self):
        return (self.some(sorted(set(self.lines)), 4),), {"now": self.now}

    def forget(self):
        return (), {"before": self.now - self.random.choice([0.0, 20.0, 100.0])}

    def promote(self):
        lane = self.random.choice(LANES)
        by = self.now + self.random.choice([0.0, 10.0])
        return (lane, self.fence(lane)), {"by": by, "max_lines": 5, "job": f"L{self.number}", "now": self.now}

    def deliver(self):
        mail = []
        for to in self.some([*RUNS, "nobody"], 4):
            self.number += 1
            sender = self.random.choice(["ann", "bob"])
            mail.append(self.mail(to, sender, self.number - self.random.choice([0, 0, 0, 40])))
        return (mail,), {"now": self.now}

    def answer(self):
        return (f"{self.run()}-q{self.random.randint(0, 4)}", b"%d" % self.number), {"now": self.now}

    def revive(self):
        status = self.some(["held", *ENDS, "parked", "ready"], 3)
        return (self.run(),), {
            "pool": self.maybe(lambda: pool(self.large())),
            "now": self.now,
            "status": status,
        }

    def put_job(self):
        return (JobHead(self.random.choice("jk"), "f", self.now, self.maybe(lambda: self.number)),), {}

    def claim_lane(self):
        return (self.random.choice(LANES), self.random.choice("wv"), 30.0), {"now": self.now}

    def fence(self, lane):
        return self.lane_fences.get(lane, 1)

    def job(self):
        if self.sharing and self.random.random() < 0.3:
            return f"L{self.random.randint(0, self.number)}"
        return f"B{self.random.randint(0, 1 + self.number // 40)}"

    def take(self):
        lane = self.random.choice(LANES)
        most = {"max_lines": self.random.randint(1, 9), "max_bytes": self.random.randint(1, 200)}
        return (lane, self.fence(lane)), {**most, "job": self.job(), "nonce": "n", "now": self.now}

    def outcomes(self):
        again = self.random.random() < 0.2
        chunk = [
            self.outcome(id, self.random.choice(["ok", "expired"]), again)
            for id in self.random.choices([*self.lines, "nothing"], k=8)
        ]
        return (self.job(), self.random.choice([1, self.fence(LANES[0])]), chunk), {"now": self.now}

    def outcome(self, id, status, again):
        if not self.sharing or again:
            return LineOutcome(id, status, b"1", again=again)
        whole = status == "ok" and self.random.random() < 0.6
        return LineOutcome(id, status, b"1", used=Usage("m", "batch", 1), lane="batch", whole=whole)

    def put_batch_job(self):
        return (self.job(), self.fence(self.random.choice(LANES))), {}

    def learn(self, name, args, result):
        """What a worker would know now."""
        if name == "claim":
            self.fences.update({run.head.id: run.head.fence for run in result})
            self.letters.update({run.head.id: [letter.id for letter in run.inbox] for run in result})
        elif name == "create":
            self.fences.update({made.head.id: made.head.fence for made in result if made.new})
        elif name == "claim_lane" and result is not None:
            self.lane_fences[args[0]] = result


async def act(store, name, args, keywords):
    if name in ("append", "land"):
        return await getattr(acts, name)(store, *args)
    if name == "put_batch_job":
        id, fence = args
        jobs = {job.id: job for job in await store.batch_jobs(open_only=False)}
        return await store.put_batch_job(jobs[id], fence) if id in jobs else None
    done = await getattr(store, name)(*args, **keywords)
    return None if name == "sweep" else done  # what a store looked at is its own business


async def everything(store, now):
    """All that can be seen from outside."""
    jobs = await store.batch_jobs(open_only=False)
    return {
        "runs": [await store.load(run) for run in RUNS],
        "history": [await store.history(run) for run in RUNS],
        "inboxes": [await store.inbox(run, 0) for run in RUNS],
        "listed": await store.runs(),
        "newest": [
            (await store.newest(job=job, status=status))[0]
            for job in (None, "", "j")
            for status in ((), ["ready", "done"], ["held", "failed"], ["parked"])
        ],
        "children": [(await store.newest(parent=run))[0] for run in RUNS],
        "finished": [await store.finished(job, after, 5) for job in "jk" for after in (0, 3, 9)],
        "jobs": await store.list_jobs(),
        "asks": await store.asks(),
        "asks of": [await store.asks(run=run) for run in RUNS],
        "ask": [await store.get_ask(f"{run}-q{i}") for run in RUNS for i in range(5)],
        "blobs": await store.get_blobs([b"d%d" % i for i in range(10)]),
        "lanes": await store.lanes(),
        "batches": jobs,
        "lines": [await store.job_lines(job.id, "", 100) for job in jobs],
        "open": await store.line_counts(open_only=True),
        "counts": [await store.line_counts(job=job) for job in ("", *[job.id for job in jobs])],
        "backlog": [await store.backlog(now=now, but=but) for but in ((), "g")],
        "answers": await store.answers("abc"),
        "unclaimed": sorted(await store.unclaimed(), key=repr),
        "dead": await store.dead_letters(),
        "budgets": await store.budgets(),
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
    memory, *files = stores = [MemoryStore(), *[SqliteStore(str(tmp_path / "runs.db")) for _ in range(2)]]
    for store in stores:
        await store.open()
    for step in range(250):
        name, args, keywords = work.draw() if step else ("create", ([work.new()],), {"now": 0.0})
        file = work.random.choice(files)
        one, two = [await act(store, name, args, keywords) for store in (memory, file)]
        assert one == two, f"step {step}: {name}{args}{keywords}"
        work.learn(name, args, one)
        if step % 10 == 9:
            for one, two in zip(
                *[(await everything(store, work.now)).items() for store in (memory, file)], strict=True
            ):
                assert one == two, f"after step {step}: {name}{args}{keywords}"
    for store in stores:
        await store.close()
