"""The show: one flow, live and in batch, killed twice, with a receipt and a proof. `make demo` runs it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import Request, urlopen

from processes import SEGUE, Processes
from proof import Agreement, Claim, agreement, each_line_once, every_row_answered, read_lines, same_journals
from reviews import Remark, choose, fetch
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from triage import LABELS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = HERE / ".data"
DATA = CACHE / "last"  # of the last show
FLOW = "demo/triage.py:triage"
PRICED_AS = "openai:gpt-4.1-mini"  # whose list price the local model's tokens are shown at
REAL = "openai:gpt-4.1-mini"
BUDGET = 120.0  # seconds for the batch
FEW = 6
WAITS = 3  # the exit code that says so
FIRST = "yet another piece of junk! it died after a week and nobody picks up the phone."

console = Console(highlight=False)


class Show:
    """One showing."""

    def __init__(self, processes: Processes, remarks: list[Remark], model: str) -> None:
        self.processes, self.remarks, self.model = processes, remarks, model
        os.environ["SEGUE_STORE"] = f"sqlite:{_short(DATA / 'runs.db')}"
        self.kills = 0
        self.at_terminal = sys.stdin.isatty() and sys.stderr.isatty()

    # ------------------------------------------------------------ commands
    def run(self, *words: str) -> int:
        """Carry a command out on this terminal; its exit code."""
        say_command(words)
        return self.processes.segue(words).wait()

    def read(self, *words: str) -> list[Any]:
        """What a command prints as JSON lines, unseen."""
        done = subprocess.run([SEGUE, *words], cwd=ROOT, capture_output=True, check=True)
        return read_lines(done.stdout)

    # ------------------------------------------------------------ scenes
    def to_the_end(self, words: Sequence[str]) -> int:
        """A command until it has all: with no terminal it leaves where only people are waited for."""
        while (code := self.run(*words)) == WAITS:
            while self.read("runs", "--asks", "--json"):
                time.sleep(0.2)
            aside("They have answered. The same command again:")
        return code

    def live(self) -> None:
        scene(
            "One remark, live",
            "Tokens as they come. Where it is urgent, a person is asked; the run is a row meanwhile.",
        )
        words = ["run", FLOW, FIRST, "--id", "first", "--model", self.model]
        people = self.people(patience=20) if self.at_terminal else None
        if people is not None:
            aside("After 20 seconds a rule answers in your stead.")
        code = self.run(*words)
        if code == 3:
            (ask,) = self.read("runs", "--asks", "--json")
            aside(
                "Nobody is at this terminal, so the process has left. The question waits in the file; a rule answers:"
            )
            self.run("answer", ask["id"], "yes")
            aside("And the run goes on. Nothing that was paid for is asked again:")
            code = self.run("run", FLOW, "--id", "first", "--model", self.model)
        if people is not None:
            people.terminate()
        if code:
            fail("the live run failed")
        aside("Each call is in the journal:")
        self.run("show", "first")

    def people(self, patience: float) -> "subprocess.Popen[bytes]":
        """Someone who answers questions, by a rule, in a process of its own."""
        address = os.environ["SEGUE_STORE"]
        return self.processes.background(
            [sys.executable, str(HERE / "people.py"), address, str(patience)], "people"
        )

    def few(self) -> None:
        scene(f"{FEW} remarks, live", "The same flow over the first rows, to know what to expect.")
        rows = write_rows("few", self.remarks[:FEW])
        words = [
            "map",
            FLOW,
            rows,
            "--live",
            "--id",
            "few",
            "-o",
            _short(DATA / "few.jsonl"),
            "--model",
            self.model,
        ]
        if self.to_the_end(words):
            fail("the live rows failed")

    def plan(self, number: int) -> str:
        scene(
            "A plan",
            f"What {number} remarks will take, before any is paid for, if the model were {PRICED_AS}.",
        )
        rows = write_rows("remarks", self.remarks[:number])
        self.run("plan", FLOW, rows, "--model", PRICED_AS)
        return rows

    def batch(self, rows: str, number: int, ledger: Path | None) -> None:
        scene(
            f"{number} remarks, in batch",
            "Not a line of the flow differs. And the process is killed, twice, while the provider is at work.",
        )
        words = ["map", FLOW, rows, "--batch", "--id", "remarks", "-o", _short(DATA / "out.jsonl")]
        words += ["--model", self.model]
        if ledger is None:
            self.kill_after(words, 15.0)
        else:
            self.kill_when(words, ledger, number // 3)
            aside("The same command again:")
            self.kill_when(words, ledger, number + 5)
        aside("The same command a last time, to the end:")
        code = self.to_the_end(words)
        if code:
            fail(f"the batch ended with exit code {code}")

    def kill_when(self, words: Sequence[str], ledger: Path, lines: int) -> None:
        """Begin, and SIGKILL once so many lines are paid."""
        say_command(words)
        process = self.processes.segue(words)
        while paid(ledger) < lines and process.poll() is None:
            time.sleep(0.05)
        self.kill(process, f"when {paid(ledger)} lines were paid")
        before = paid(ledger)
        time.sleep(3)
        aside(f"Nobody is there, the provider works on: {paid(ledger) - before} lines more.")

    def kill_after(self, words: Sequence[str], seconds: float) -> None:
        """Begin, and SIGKILL after a while."""
        say_command(words)
        process = self.processes.segue(words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        self.kill(process, f"after {seconds:.0f} s")

    def kill(self, process: "subprocess.Popen[bytes]", when: str) -> None:
        if process.poll() is not None:
            aside(f"(It had ended already, with exit code {process.returncode}.)")
            return
        process.kill()
        process.wait()
        self.kills += 1
        if console.is_terminal:
            sys.stderr.write("\r\x1b[2K\x1b[?25h")
            sys.stderr.flush()
        console.print(Text(f"  ✗ SIGKILL {when}", style="bold red"))

    def receipt(self) -> None:
        scene(
            "The receipt",
            "Counted from the journals. The model here is your own machine, so it has no price.",
        )
        self.run("receipt", "--job", "remarks")
        from segue.providers.prices import Prices

        (receipt,) = self.read("receipt", "--job", "remarks", "--json")
        (line,) = receipt["lines"]
        tokens = line["input_tokens"], line["output_tokens"], 0
        live, batch = (Prices().usd(PRICED_AS, lane, *tokens) for lane in ("live", "batch"))
        if live is not None and batch is not None:
            aside(f"These tokens at the list price of {PRICED_AS}: ${live:.4f} live, ${batch:.4f} in batch.")

    # ------------------------------------------------------------ the proof
    def prove(self, rows: list[Remark], ledger: Path | None, seconds: float) -> bool:
        scene("The proof", "By the provider's own ledger, and by the journals.")
        out = read_lines((DATA / "out.jsonl").read_bytes())
        journals = self.journals("remarks")
        claims = [every_row_answered(out, [row.text for row in rows])]
        if ledger is not None:
            answers = sum(call.get("kind") == "generate" for calls in journals.values() for call in calls)
            claims.append(each_line_once(read_lines(ledger.read_bytes()), answers))
            few = self.journals("few")
            claims.append(same_journals([(few[key], journals[key]) for key in few]))
        claims.append(
            Claim(
                "It was killed, really", self.kills > 0, f"{self.kills} × SIGKILL, {self.kills + 1} processes"
            )
        )
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for claim in claims:
            mark = "[green]✓[/]" if claim.holds else "[bold red]✗[/]"
            table.add_row(f"  {mark}", f"[bold]{claim.text}[/]", claim.shown)
        console.print(table)
        console.print()
        show_outcomes(out, rows)
        felt = agreement(out, [row.rating for row in rows])
        holds = all(claim.holds for claim in claims)
        console.print(
            Panel(summary(felt, out, seconds, holds), border_style="green" if holds else "red", expand=False)
        )
        return holds

    def journals(self, job: str) -> dict[str, list[dict[str, Any]]]:
        """The journals of a job's runs, by key."""
        directory = DATA / "journals" / job
        self.read("export", "--job", job, "-o", str(directory))
        return {file.stem: read_lines(file.read_bytes()) for file in directory.glob("*.jsonl")}


# ---------------------------------------------------------------- the screen
def scene(title: str, about: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{title}[/]", align="left", style="cyan"))
    console.print(about)
    console.print()


def aside(text: str) -> None:
    console.print(Text(text, style="dim"))


def say_command(words: Sequence[str]) -> None:
    console.print(Text(f"$ segue {shlex.join(words)}", style="bold cyan"), soft_wrap=True)


def fail(text: str) -> NoReturn:
    console.print(Text(f"✗ {text}; what was said is in {_short(DATA)}", style="bold red"))
    raise SystemExit(1)


def show_outcomes(out: Sequence[dict[str, Any]], rows: Sequence[Remark]) -> None:
    """Some of the answers, one of each outcome first."""
    good = [(line["value"], row) for line, row in zip(out, rows, strict=True) if not line.get("error")]
    kinds = ("answered", "escalated", "filed")
    by_kind = {kind: [pair for pair in good if pair[0]["outcome"] == kind] for kind in kinds}
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    for name in ("people", "outcome", "remark", "answer"):
        table.add_column(name, ratio=1 if name in ("remark", "answer") else None)
    for kind, number in zip(kinds, (2, 1, 1), strict=True):
        for value, row in by_kind[kind][:number]:
            table.add_row(f"{row.rating:+.1f}", kind, Text(row.text), Text(value["answer"]))
    console.print(table)


def summary(felt: Agreement, out: Sequence[dict[str, Any]], seconds: float, holds: bool) -> str:
    outcomes = [line["value"]["outcome"] for line in out if not line.get("error")]
    sorts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("filed", "answered", "escalated"))
    minutes = f"{int(seconds // 60)} min {int(seconds % 60):02} s"
    return (
        f"{len(outcomes)} remarks: {sorts}. {'[green]The proof holds.[/]' if holds else '[red]The proof fails.[/]'}\n"
        f"The model felt as people did in [bold]{felt.share:.0%}[/]; who always says the commoner thing, in "
        f"{felt.baseline:.0%}.\nAll of it took {minutes}."
    )


# ---------------------------------------------------------------- helpers
def write_rows(name: str, remarks: Sequence[Remark]) -> str:
    path = DATA / f"{name}.rows.jsonl"
    path.write_text("".join(json.dumps(remark.text) + "\n" for remark in remarks))
    return _short(path)


def pace(url: str, remarks: Sequence[Remark]) -> float:
    """Seconds that a remark will take in the batch, by asking the model for a few labels."""

    def label(remark: Remark) -> None:
        prompt = f"{LABELS}\nReview: {remark.text}\nLabel:"
        body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
        urlopen(Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})).read()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(label, remarks[-4:]))  # the first ones are slower
        begun = time.monotonic()
        list(threads.map(label, remarks[-12:-4]))
    return 1.6 * (time.monotonic() - begun) / 8


def paid(ledger: Path) -> int:
    """Batch lines that were paid so far."""
    return ledger.read_bytes().count(b'"kind":"batch"') if ledger.exists() else 0


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def wants_real() -> bool:
    """Whether the real thing is there and wanted."""
    if not os.environ.get("OPENAI_API_KEY") or not sys.stdin.isatty():
        return False
    console.print(
        f"OPENAI_API_KEY is set. With {REAL} this sends about 60 requests of 250 tokens: about one US cent."
    )
    console.print(
        "The batch may take minutes to hours; Ctrl-C leaves, and what was sent is then lost to this show."
    )
    return input("Use it? (No: a small model on this machine, no money.) [y/N] ").strip().lower() in (
        "y",
        "yes",
    )


def main() -> int:
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    CACHE.mkdir(exist_ok=True)
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    os.chdir(ROOT)
    console.print(
        Panel(
            "[bold]segue[/]: write an LLM workflow once; run it live, or in batch at half the price.",
            expand=False,
        )
    )
    remarks = choose(fetch(CACHE))
    console.print(f"{len(remarks)} remarks from Amazon reviews, each rated by at least 20 people.")
    real = wants_real()
    with Processes(ROOT, DATA) as processes:
        ledger: Path | None = None
        model, url = REAL, ""
        if not real:
            threads = (
                "1" if os.getloadavg()[0] > 1.5 else "2"
            )  # two that fight for one core are slower than one
            url = processes.server([sys.executable, str(HERE / "model.py"), threads], "model")
            ledger = DATA / "ledger.jsonl"
            words = ["simulate", "--upstream", url, "--concurrency", "4", "--batch-time", "2"]
            words += ["--ledger", _short(ledger), "--dir", _short(DATA / "provider")]
            console.print(
                "SmolLM2-135M runs on this machine, behind a provider with a Batch API and a ledger of its own:"
            )
            say_command(words)
            model = f"openai:smollm2@{processes.server([SEGUE, *words], 'provider')}"
        show = Show(processes, remarks, model)
        console.print(Text(f"$ export SEGUE_STORE={os.environ['SEGUE_STORE']}", style="bold cyan"))
        console.print()
        console.print("The flow, written once:")
        console.print(flow_source())
        show.live()
        show.people(patience=0.2)
        show.few()
        number = 20 if real else max(60, min(len(remarks), int(BUDGET / pace(url, remarks)) // 10 * 10))
        rows = show.plan(number)
        show.batch(rows, number, ledger)
        show.receipt()
        holds = show.prove(remarks[:number], ledger, time.monotonic() - begun)
    return 0 if holds else 1


def flow_source() -> Any:
    from rich.syntax import Syntax

    text = (HERE / "triage.py").read_text()
    return Syntax(text[text.index("@dataclass") :], "python", background_color="default")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("\nInterrupted; every process that was started here is gone.")
        sys.exit(130)
