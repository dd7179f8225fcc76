"""The works: what is asked of every competitor, in what sizes, and what segue has to reach."""

from dataclasses import dataclass, field
from typing import Literal

SQLITE = "SQLite: WAL, synchronous=FULL (LangGraph: the same, durability=sync; DBOS: rollback journal, FULL)"


@dataclass(frozen=True)
class Case:
    """A figure; `{n}` in its label is the size that was measured.

    `ratio` bounds segue over the limit, `value` its absolute figure; less or more is better.
    """

    key: str
    label: str
    unit: str
    limit: str
    ratio: float | None = None
    value: float | None = None
    better: Literal["less", "more"] = "less"
    variants: tuple[tuple[str, str], ...] = ()  # further limits, printed beside: key and what it is


@dataclass(frozen=True)
class Run:
    """One order to every side; sides hand in figures for its cases. Phases need a new process each."""

    cases: tuple[Case, ...]
    phases: tuple[str, ...]
    n: int
    quick: int
    peers: tuple[str, ...] = ()
    sizes: dict[str, int] = field(
        default_factory=dict
    )  # a slower side is given less where a rate is measured
    rounds: int = 5
    fresh: bool = False  # a new process every round
    model: float = 0.0  # needs the local model, which answers after so many seconds
    seconds: int = 90  # for an order at most, unless it is quick

    def size(self, side: str, quick: bool) -> int:
        full = self.sizes.get(side, self.n)
        return max(1, full * self.quick // self.n) if quick else full


@dataclass(frozen=True)
class Work:
    name: str
    what: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()


def served(key: str, where: str) -> tuple[Case, ...]:
    limit = "bare aiohttp, streaming"
    return (
        Case(f"{key}.p50", f"{where}: half are answered within", "s", limit, value=1.25),
        Case(f"{key}.p99", f"{where}: 99 of 100 within", "s", limit, value=1.6),
        Case(f"{key}.rate", f"{where}: answered", "requests/s", limit, value=590, better="more"),
        Case(f"{key}.held", f"{where}: memory a run", "KB", limit, value=50),
    )


def parked(n: int, wake_goal: float | None) -> tuple[Case, ...]:
    at = "{n} runs: "
    return (
        Case(f"resident.{n}", at + "resident", "KB each", "a coroutine on a future", value=0.1),
        Case(f"disk.{n}", at + "on disk", "KB each", "a row", value=1.0),
        Case(f"wake.{n}", at + "wake all", "s", "two group commits a run, 100 at a time", value=wake_goal),
    )


def long(n: int, resume_goal: float | None) -> tuple[Case, ...]:
    at = "{n} steps: "
    return (
        Case(f"time.{n}", at + "run", "s", "one commit a step into an append table", ratio=2),
        Case(f"written.{n}", at + "written", "MB", "the same", ratio=2),
        Case(f"resume.{n}", at + "resume", "s", "read and decode all rows", value=resume_goal),
    )


WORKS = (
    Work(
        "chain",
        "runs of 5 asynchronous steps that do nothing, each returning 1 KB of JSON",
        (
            Run(
                (
                    Case(
                        "memory",
                        "in memory, one at a time",
                        "µs a step",
                        "an asyncio task a step, json.dumps of its result and json.loads of that",
                        ratio=1.0,
                        variants=(
                            ("memory.task", "the task alone"),
                            ("memory.dumps", "the task and json.dumps"),
                            (
                                "memory.args",
                                "the same, and json.dumps of the arguments, which segue writes too",
                            ),
                        ),
                    ),
                ),
                ("chain_memory",),
                n=2000,
                quick=500,
                peers=("langgraph",),
                sizes={"langgraph": 100},
            ),
            Run(
                (
                    Case(
                        "one",
                        "SQLite, one at a time",
                        "µs a step",
                        "one commit a step by a writer thread",
                        ratio=1.7,
                        variants=(("one.inline", "the commit made on the loop's own thread"),),
                    ),
                ),
                ("chain_one",),
                n=200,
                quick=80,
                peers=("langgraph", "dbos"),
                sizes={"langgraph": 30, "dbos": 30},
            ),
            Run(
                (
                    Case(
                        "hundred",
                        "SQLite, 100 at a time",
                        "µs a step",
                        "group commit into an append table, rows encoded beforehand",
                        ratio=2.0,
                        value=60,
                        variants=(
                            ("hundred.indexed", "into a table whose rows can be found by their run"),
                            ("hundred.whole", "the same, and rows have the step's arguments, 1 KB, too"),
                            ("hundred.clustered", "into a table clustered by its key"),
                            (
                                "hundred.made",
                                "rows encoded by the runs, which begin and end with one",
                            ),
                        ),
                    ),
                ),
                ("chain_hundred",),
                n=2000,
                quick=500,
                peers=("langgraph", "dbos"),
                sizes={"langgraph": 200, "dbos": 200},
            ),
        ),
        (
            SQLITE,
            "In memory: segue encodes what a step gives and hands on a decoded copy, so its limit does.",
            "SQLite: segue's rows are found by their run, and have the arguments, 1 KB, but for those that are what "
            "the step before gave: here all but the first step's. The limit's aren't found, and have none.",
            "DBOS keeps everything in a database: no figure in memory.",
        ),
    ),
    Work(
        "llm",
        "runs of three model calls of 200 ms each, all at once, against a local server",
        (
            Run(
                (
                    Case("memory", "in memory", "runs/s", "bare asyncio + aiohttp", 0.7, better="more"),
                    Case("sqlite", "SQLite", "runs/s", "the same", 0.5, better="more"),
                ),
                ("llm",),
                n=1000,
                quick=150,
                peers=("langgraph", "dbos"),
                rounds=3,
                model=0.2,
            ),
        ),
        (
            SQLITE,
            "The limit keeps nothing; all peers call the model with aiohttp inside a node or step.",
            "As many runs come before: segue's limit of live calls, 2,000 here (256 unless said), widens with answers.",
        ),
    ),
    Work(
        "calls",
        "live model calls as fast as they go: a local server answers in 1 ms, 100 are under way at once",
        (
            Run(
                (
                    Case("memory", "runs of one call, in memory", "calls/s", "bare aiohttp", better="more"),
                    Case("sqlite", "runs of one call, SQLite", "calls/s", "the same", better="more"),
                    Case("long", "runs of 20 calls, SQLite", "calls/s", "the same", better="more"),
                ),
                ("calls",),
                n=4000,
                quick=1000,
                rounds=3,
                model=0.001,
            ),
        ),
        (SQLITE, "Per CPU second of the caller's process; the server has one of its own."),
    ),
    Work(
        "served",
        "600 requests a second come in, each a run that streams one answer of a model that takes 1.2 s (8 chunks)",
        (
            Run(
                tuple(
                    case
                    for key, where in (("memory", "in memory"), ("sqlite", "SQLite"))
                    for case in served(key, where)
                ),
                ("served_memory", "served_sqlite"),
                n=6000,
                quick=1200,
                rounds=2,
                fresh=True,
                model=1.2,
            ),
        ),
        (
            SQLITE,
            "From the time a request was due until its answer was whole; 600 come in a second, whatever is under way.",
            "A thousand at once come before, twice: segue's limit of live calls, 2,000 here, widens with answers.",
            "Answered: from the first answer to the last.",
            "Memory: the process's growth after its first request, over a thousand; with what is kept of all 8,000.",
        ),
    ),
    Work(
        "parked",
        "runs that wait for a person: what each holds meanwhile, and how long all take to go on (SQLite)",
        (
            Run(
                parked(500, None),
                ("parked",),
                n=500,
                quick=150,
                peers=("langgraph", "dbos"),
                rounds=2,
                fresh=True,
            ),
            Run(parked(10_000, 3.0), ("parked",), n=10000, quick=2000, rounds=2, fresh=True),
        ),
        (
            SQLITE,
            "Resident: growth of the process 0.5 s after the runs came to wait, free memory handed back; segue has had"
            " as many waiting before, 3,000 at most, so that what it needs for those at work isn't counted.",
        ),
    ),
    Work(
        "long",
        "one run of many steps, 200 bytes each, one after the other (SQLite); then killed, and resumed",
        (
            Run(
                long(2000, None),
                ("long_write", "long_resume"),
                n=2000,
                quick=500,
                peers=("langgraph", "dbos"),
                rounds=2,
                fresh=True,
            ),
            Run(
                long(10_000, 0.3),
                ("long_write", "long_resume"),
                n=10000,
                quick=2000,
                fresh=True,
                rounds=2,
            ),
        ),
        (
            SQLITE,
            "Written: bytes handed to write(2).",
            "Resume: a new process opens the store, the run is answered and ends. Killed 0.5 s after it came to wait.",
        ),
    ),
    Work(
        "fanout",
        "many steps of one run started at once, then a join",
        (
            Run(
                (Case("memory", "{n} steps, in memory", "s", "asyncio tasks and gather", value=0.06),),
                ("fanout_memory",),
                n=1000,
                quick=300,
                peers=("langgraph",),
            ),
            Run(
                (Case("sqlite", "{n} steps, SQLite", "s", "the same, group commit a step", value=0.2),),
                ("fanout_sqlite",),
                n=1000,
                quick=300,
                peers=("langgraph", "dbos"),
                rounds=3,
            ),
        ),
        (SQLITE,),
    ),
    Work(
        "actor",
        "messages to an actor: told one way, and asked one after the other",
        (
            Run(
                (
                    Case(
                        "one-way",
                        "in memory, one way",
                        "messages/s",
                        "asyncio.Queue",
                        value=200_000,
                        better="more",
                    ),
                    Case(
                        "round",
                        "in memory, round trips",
                        "trips/s",
                        "asyncio.Queue and a future",
                        0.6,
                        better="more",
                    ),
                ),
                ("actor_memory",),
                n=200_000,
                quick=50_000,
                peers=("pykka", "thespian", "autogen", "ray"),
                sizes={"segue": 100_000, "pykka": 50_000, "thespian": 50_000, "autogen": 5_000, "ray": 5_000},
            ),
            Run(
                (
                    Case(
                        "durable",
                        "SQLite, 100 actors, handled once",
                        "messages/s",
                        "group commit: once to send, once to handle",
                        value=10_000,
                        better="more",
                    ),
                ),
                ("actor_durable",),
                n=10_000,
                quick=5_000,
                rounds=3,
            ),
            Run(
                (
                    Case(
                        "sqlite.one-way",
                        "SQLite, one actor, told by 100 at once",
                        "messages/s",
                        "group commit to send; one commit to handle what is there",
                        better="more",
                    ),
                    Case(
                        "sqlite.round",
                        "SQLite, round trips",
                        "trips/s",
                        "a commit to send, a commit to handle",
                        better="more",
                    ),
                ),
                ("actor_sqlite",),
                n=10_000,
                quick=3_000,
                rounds=3,
            ),
        ),
        (
            SQLITE,
            "Pykka runs an actor on a thread, Thespian in its simpleSystemBase, autogen-core in its"
            " SingleThreadedAgentRuntime, Ray in a process of its own, whose CPU time isn't counted."
            " None keeps messages.",
        ),
    ),
    Work(
        "idle",
        "actors that handled a message and wait for the next one: what each holds meanwhile",
        (
            Run(
                (
                    Case("out", "{n} actors out of memory: resident", "KB each", "nothing", value=0.1),
                    Case("disk", "{n} actors: on disk", "KB each", "a row"),
                ),
                ("idle_out",),
                n=100_000,
                quick=5_000,
                rounds=1,
                fresh=True,
                seconds=600,
            ),
            Run(
                (
                    Case(
                        "in",
                        "{n} actors in memory: resident",
                        "KB each",
                        "a task that waits on a queue",
                        value=3,
                    ),
                ),
                ("idle_in",),
                n=100_000,
                quick=5_000,
                rounds=1,
                fresh=True,
                seconds=600,
            ),
            Run(
                (
                    Case(
                        "heap-out", "{n} actors out of memory: Python heap", "KB each", "nothing", value=0.1
                    ),
                    Case(
                        "heap-in",
                        "{n} actors in memory: Python heap",
                        "KB each",
                        "a task that waits on a queue",
                    ),
                ),
                ("heap_out", "heap_in"),
                n=10_000,
                quick=2_000,
                rounds=1,
                fresh=True,
                seconds=300,
            ),
        ),
        (
            SQLITE,
            "Resident: growth of the process after 3,000 that came before, free memory handed back."
            " Python heap: what tracemalloc counts.",
            "Out of memory is how actors wait; in memory they are held by a longer rest, which is 0.05 s else.",
        ),
    ),
    Work(
        "age",
        "how old an actor may get: asked something when it is out of memory, and one whose field grows (SQLite)",
        (
            Run(
                (
                    Case("young", "asked after 10 messages", "ms", "a row read, two commits", value=5),
                    Case("old", "asked after {n} messages", "ms", "the same", value=5),
                ),
                ("wake_by_age",),
                n=100_000,
                quick=5_000,
                rounds=1,
                fresh=True,
                seconds=300,
            ),
            Run(
                (
                    Case(
                        "time.grown",
                        "{n} states, 200 bytes more in a field each",
                        "s",
                        "one commit a step into an append table",
                        ratio=2,
                    ),
                    Case("written.grown", "{n} states: written", "MB", "the same", ratio=2),
                    Case("wake.grown", "{n} states: asked then", "ms", "read and decode all rows", value=5),
                ),
                ("grow_write", "grow_wake"),
                n=10_000,
                quick=2_000,
                rounds=2,
                fresh=True,
            ),
        ),
        (
            SQLITE,
            "Asked: the median of 20 requests, each to an actor that has left memory; it is read, answers, and both"
            " are committed. After growth, by a new process.",
        ),
    ),
    Work(
        "lanes",
        "lines that wait in a lane: jobs built, submitted, fetched, and each outcome delivered to its run; no network",
        (
            Run(
                (
                    Case(
                        "lines",
                        "{n} lines",
                        "lines/s",
                        "the same JSONL written, then read line by line and its answers written",
                        ratio=0.3,
                        better="more",
                    ),
                    Case("grown", "{n} lines: memory grown by", "MB", "the same", value=50),
                ),
                ("lanes",),
                n=1_000_000,
                quick=50_000,
                rounds=1,
                fresh=True,
                seconds=600,
            ),
        ),
        (SQLITE, "Jobs of 50,000 lines, requests of 600 bytes; what the provider itself does isn't counted."),
    ),
    Work(
        "tree",
        "a supervisor with 100 supervisors, each with its share of the others: all started, then ended in order",
        (
            Run(
                (
                    Case("start", "{n} actors, in memory, start", "s", "asyncio tasks in nested task groups"),
                    Case(
                        "stop",
                        "{n} actors, in memory, stop",
                        "s",
                        "the same: each told to end, and waited for",
                    ),
                ),
                ("tree_memory",),
                n=10_000,
                quick=1000,
                rounds=3,
            ),
            Run(
                (
                    Case("sqlite.start", "{n} actors, SQLite, start", "s", "the same, which keep nothing"),
                    Case("sqlite.stop", "{n} actors, SQLite, stop", "s", "the same"),
                ),
                ("tree_sqlite",),
                n=10_000,
                quick=1000,
                rounds=2,
            ),
        ),
        (SQLITE, "An actor counts as started once it has run its first state."),
    ),
    Work(
        "import",
        "CPU time of the import in a new interpreter",
        (
            Run(
                (
                    Case("import", "import", "s", "import asyncio, msgspec", ratio=1.3),
                    Case("use", "import, and what a first flow names", "s", "the same"),
                ),
                ("import",),
                n=1,
                quick=1,
                peers=("langgraph", "dbos"),
                rounds=7,
            ),
        ),
        (
            "segue loads a name when it is first used; the second row uses Engine, flow, step, generate and ask.",
        ),
    ),
)

IMPORTS = {  # the import, and what it takes to have what a first program names
    "limit": ("import asyncio, msgspec", "pass"),
    "segue": ("import segue", "segue.Engine, segue.flow, segue.step, segue.generate, segue.ask"),
    "langgraph": ("import langgraph.graph", "langgraph.graph.StateGraph"),
    "dbos": ("import dbos", "dbos.DBOS"),
}
