from __future__ import annotations

import gc
import re
import shlex
import socket
import subprocess
import sys

import pytest

import segue
from segue.cli.examples import EXAMPLES
from segue.cli.main import COMMANDS, SELDOM, TOUR, find, main, make_parser, written_out
from tests.cli.desk import Desk


def test_help_is_a_tour(desk: Desk):
    with pytest.raises(SystemExit) as ended:
        desk.segue("--help")
    assert ended.value.code == 0


def test_help_loads_little():
    script = (
        "import sys\nfrom segue.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*(set(sys.modules) & {'aiohttp', 'rich', 'sqlite3', 'segue.runtime.engine'}), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "a tour:" in ended.stdout
    assert ended.stderr.split() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    assert callable(find(command, "do"))
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: segue {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_the_terminal(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main([command, "--help"] if command else ["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > width] == []


def test_help_keeps_its_columns_where_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["--help"])
    narrow = capsys.readouterr().out
    assert "  segue runs --asks\n      who waits for whom; also --job, --failed\n" in narrow
    monkeypatch.setenv("COLUMNS", "130")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert TOUR in capsys.readouterr().out
    assert TOUR.split() == narrow[narrow.index("a tour:") :].split()


def test_no_command(desk: Desk):
    said = desk.segue()
    assert said.code == 2
    assert "a tour:" in said.out


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["rnu"])
    assert ended.value.code == 2
    assert "there is no command 'rnu'; did you mean 'run'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs", "--bach"], "segue runs: there is no option --bach\n"),
        (["map", "app.py", "rows", "--bach"], "segue map: there is no option --bach; did you mean --batch?"),
        (["map", "app.py", "rows", "--batch", "6h"], "one word too many, '6h'; did you mean --batch=6h?"),
        (["runs", "j"], "segue runs: there is one word too many, 'j'\n"),
        (
            ["map", "app.py", "rows", "--limit", "0"],
            "segue map: argument --limit: '0' is no number from 1 on",
        ),
    ],
)
def test_words_that_are_too_many(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    """The first line says what is wrong, and which."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith(f"segue {words[0]}: ")
    assert f"`segue {words[0]} --help` tells more" in said


def test_what_is_asked_by_habit(capsys: pytest.CaptureFixture[str]):
    for words, says in ((["--version"], f"segue {segue.__version__}"), (["help", "map"], "usage: segue map")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert says in capsys.readouterr().out


def test_an_option_before_the_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--store", "sqlite:a.db", "runs"])
    assert ended.value.code == 2
    assert "options come after it" in capsys.readouterr().err


def test_a_port_that_is_taken(desk: Desk):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = desk.segue("simulate", "--port", str(taken.getsockname()[1]))
    assert said.code == 2
    assert "Address already in use; --port 0 takes a free one" in said.err


def test_simulate_at_a_host_that_isnt_there(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    said = desk.segue("simulate", "--host", "nix.example")
    assert said.code == 2
    assert said.err == (
        "segue: --host: expected an address of this machine: Name or service not known; got nix.example\n"
    )


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("app.py:twise", "did you mean 'twice'?"),
        ("app.py", "name one of app.py: `app.py:twice`, `app.py:pair`, "),
        ("app.py:dataclass", "isn't a flow: decorate it with @segue.flow, above any other decorator"),
        ("nothing.py:f", "there is no file 'nothing.py'"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("empty.py:f", "has none: decorate an async function"),
        ("broken.py:f", "broken.py can't be imported: ZeroDivisionError"),
        ("needs.py:f", "No module named 'surely_not_there'"),
    ],
)
def test_a_flow_that_is_not_there(desk: Desk, target: str, says: str):
    desk.write("empty.py", "x = 1\n")
    desk.write("broken.py", "x = 1\n1 / 0\n")
    desk.write("needs.py", "import surely_not_there\n")
    said = desk.segue("run", target, "1")
    assert said.code == 2
    assert says in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) <= 2


def test_a_file_may_be_called_as_it_likes(desk: Desk):
    desk.write("json.py", "import segue\n@segue.flow\nasync def f(n: int) -> int:\n    return n + 1\n")
    assert desk.segue("run", "json.py:f", "1").out == "2\n"
    assert desk.segue("run", "json.py", "1").out == "2\n"


def test_a_file_named_like_a_module_hides_none(desk: Desk):
    desk.write("turtle.py", "import segue\n@segue.flow\nasync def f(n: int) -> int:\n    return n + 1\n")
    assert desk.segue("run", "turtle.py", "1").out == "2\n"
    assert "turtle" not in sys.modules


def test_a_file_imports_from_beside_itself(desk: Desk):
    (desk.path / "sub").mkdir()
    desk.write("sub/beside_it.py", "N = 41\n")
    desk.write(
        "sub/here.py",
        "import segue\nfrom beside_it import N\n@segue.flow\nasync def f() -> int:\n    return N + 1\n",
    )
    assert desk.segue("run", "sub/here.py:f").out == "42\n"


def test_a_file_of_a_package_is_named_as_a_module(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    (desk.path / "packed" / "inner").mkdir(parents=True)
    for init in ("packed/__init__.py", "packed/inner/__init__.py"):
        desk.write(init, "")
    desk.write("packed/beside_it.py", "N = 41\n")
    desk.write(
        "packed/inner/here.py",
        "import segue\nfrom ..beside_it import N\n@segue.flow\nasync def f() -> int:\n    return N + 1\n",
    )
    said = desk.segue("run", "packed/inner/here.py")
    assert said.code == 2
    assert f"part of a package, so name it as a module, `packed.inner.here`, in {desk.path}" in said.err
    monkeypatch.syspath_prepend(desk.path)
    assert desk.segue("run", "packed.inner.here").out == "42\n"


def test_traceback_on_demand(desk: Desk):
    desk.write("broken.py", "1 / 0\n")
    with pytest.raises(Exception, match="can't be imported"):
        desk.segue("run", "broken.py:f", "--traceback")


@pytest.mark.parametrize(
    "command", ["runs", "show x", "receipt", "export x", "answer x y", "resume x", "advance"]
)
def test_a_command_that_looks_makes_no_store(desk: Desk, command: str):
    said = desk.segue(*command.split())
    assert said.code == 2
    assert "there is no store 'sqlite:segue.db'" in said.err
    assert not (desk.path / "segue.db").exists()


def test_the_store_of_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGUE_STORE", "sqlite:elsewhere.db")
    assert desk.segue("run", "app.py:twice", "2").code == 0
    assert (desk.path / "elsewhere.db").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("sqlite:app.py", "app.py"),
        ("sqlite:no/such/dir/x.db", "no/such/dir"),
        ("oracle:x", "use 'memory:' or"),
    ],
)
def test_a_store_that_is_none(desk: Desk, address: str, says: str):
    said = desk.segue("run", "app.py:twice", "2", "--store", address)
    assert said.code == 2
    assert says in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "99999"], "is no port"),
        (["--batch-time", "-1"], "give seconds, 0 or more"),
        (["--latency", "nan"], "give seconds, 0 or more"),
    ],
)
def test_a_simulator_that_cant_be(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *words])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_jobs_id_for_a_runs(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    for words in (("show", "j"), ("resume", "j"), ("fork", "j")):
        said = desk.segue(*words)
        assert said.code == 2
        assert "that is a job: `segue runs --job j` lists its runs" in said.err


def test_an_output_without_a_job(desk: Desk):
    said = desk.segue("advance", "app.py", "-o", "x.out")
    assert said.code == 2
    assert "--job JOB" in said.err


def test_ctrl_c_while_a_command_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: str, verb: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segue.cli.main.find", interrupted)
    assert main(["runs"]) == 130
    assert capsys.readouterr().err == "interrupted; what was done is kept\n"


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def full(args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "segue.cli.main.find", lambda command, verb: full if verb == "do" else lambda parser: None
    )
    monkeypatch.setattr("os.dup2", lambda *each: None)
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == "segue: No space left on device\n"
    with pytest.raises(OSError, match="No space"):
        main(["runs", "--traceback"])


def test_the_garbage_collector_looks_less_often_while_a_command_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And as before where a program calls `main`."""
    meanwhile: list[tuple[int, int, int]] = []

    async def look(args: object) -> int:
        meanwhile.append(gc.get_threshold())
        return 0

    monkeypatch.setattr(
        "segue.cli.main.find", lambda command, verb: look if verb == "do" else lambda parser: None
    )
    before = gc.get_threshold()
    assert main(["runs"]) == 0
    assert meanwhile == [SELDOM] != [before]
    assert gc.get_threshold() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["worker", "app.py", "--grace", "-1"], "argument --grace: '-1' is no number of seconds from 0 on"),
        (["--verison"], "did you mean --version?"),
        (["runs", "--limit", "-1"], "argument --limit: '-1' is no number from 0 on"),
        (["dead", "--resend", "x"], "argument --resend: 'x' is no number from 0 on"),
        (["run", "app.py:pair", "a", "--batch=6"], "argument --batch: '6' is no time"),
        (["run", "app.py:pair", "a", "--reuse=6"], "argument --reuse: '6' is no time"),
    ],
)
def test_an_option_that_is_no_good_is_named_as_it_was_typed(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def examples() -> list[list[str]]:
    """The commands in the examples that helps end with, without what a shell does with them."""
    lines = [line for text in EXAMPLES.values() for line in text.splitlines() if line.startswith("  ")]
    found = [re.match(r"  (?:cat .* \| |until )?(segue .*?)(?= {3}|[|;>]|$)", line) for line in lines]
    return [shlex.split(one[1]) for one in found if one is not None]


def test_each_command_has_examples():
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert {words[1] for words in examples()} == set(COMMANDS)


@pytest.mark.parametrize("words", examples(), ids=" ".join)
def test_an_example_is_a_command(words: list[str]):
    given = written_out(words[1:])
    args, left = make_parser(given).parse_known_args(given)
    assert (args.command, left) == (words[1], [])


def test_a_command_whose_extra_is_not_installed_says_so():
    script = (
        "import sys\nsys.modules['aiohttp'] = None\n"
        "from segue.cli.main import main\nsys.exit(main(['simulate', '--help']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        2,
        "segue: aiohttp isn't installed; `pip install 'segue[simulator]'`\n",
    )
