from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys

import pytest

import segue
from segue.ports.store import JobHead
from tests.cli.desk import Desk, Provider


def test_one_line_a_row_in_order(desk: Desk):
    desk.write("rows.jsonl", "".join(f"{n}\n" for n in (5, 7, 1)))
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl")
    assert said.code == 1
    assert said.out == ""
    assert desk.rows() == [
        {"index": 0, "key": "0", "input": 5, "value": 20},
        {
            "index": 1,
            "key": "1",
            "input": 7,
            "error": {"type": "ValueError", "message": "seven is right out"},
        },
        {"index": 2, "key": "2", "input": 1, "value": 4},
    ]
    assert "2/3 done · 1 failed" in said.err
    assert "1 × ValueError: seven is right out" in said.err
    assert "whatever the cause" not in said.err  # there is one


def test_without_an_output_lines_go_to_standard_output(desk: Desk):
    desk.write("rows.jsonl", "5\n1\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl")
    assert said.code == 0
    assert [row["value"] for row in said.rows] == [20, 4]


def test_bad_rows_harm_no_other(desk: Desk):
    desk.write("rows.jsonl", '5\n{bad\n\n"six"\n6\nNaN\n')
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl")
    assert said.code == 1
    assert "3 rows can't be read" in said.err
    rows = desk.rows()
    assert [row.get("value") for row in rows] == [20, None, None, 24, None]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["error"]["type"] == "BadRow"
    assert rows[1]["error"]["message"].startswith("line 2: it isn't JSON")
    assert rows[1]["input"] == "{bad"
    assert "line 4: argument 'n' of twice: expected int" in rows[2]["error"]["message"]
    assert rows[2]["input"] == "six"
    assert rows[4]["error"]["message"].startswith("line 6: it isn't JSON")


def test_bad_bytes_are_a_bad_row(desk: Desk):
    (desk.path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"left":"a"}\n"\xff\xfe"\n{"left":"b"}\n')
    assert desk.segue("map", "app.py:pair", "rows.jsonl", "-o", "out.jsonl").code == 1
    assert [row.get("value") for row in desk.rows()] == ["a:3", None, "b:3"]
    assert "it isn't UTF-8" in desk.rows()[1]["error"]["message"]
    desk.write("words.jsonl", '{"left": "a"}\n{"left": "b", "right": 1}\n{"left": "c", "rihgt": 1}\n')
    assert desk.segue("map", "app.py:pair", "words.jsonl", "-o", "out.jsonl").code == 1
    rows = desk.rows()
    assert [row.get("value") for row in rows] == ["a:3", "b:1", None]
    assert "there is no parameter 'rihgt'" in rows[2]["error"]["message"]
    assert rows[1]["input"] == {"left": "b", "right": 1}


def test_csv(desk: Desk):
    desk.write("rows.csv", 'left,right\na,1\n"b, ""or""\n so",\nc\nd,x\n')
    said = desk.segue("map", "app.py:pair", "rows.csv", "-o", "out.jsonl")
    assert said.code == 1
    rows = desk.rows()
    assert [row.get("value") for row in rows] == ["a:1", 'b, "or"\n so:3', None, None]
    assert rows[2]["error"]["message"] == "line 5: it has 1 cells under 2 headings"
    assert rows[3]["error"]["message"].startswith("line 6: argument 'right' of pair: expected int")


def test_a_csv_of_one_column(desk: Desk):
    desk.write("rows.csv", "n\n5\n6\n")
    assert desk.segue("map", "app.py:twice", "rows.csv").rows[1]["value"] == 24


@pytest.mark.parametrize(
    ("name", "content", "flow", "says"),
    [
        (
            "rows.csv",
            b"n,note\n5,a\n",
            "twice",
            "line 2: row for twice: expected one column 'n': the columns are n",
        ),
        (
            "rows.csv",
            "left,prénom\na,é\n".encode("latin-1"),
            "pair",
            "it isn't UTF-8; save the file as UTF-8",
        ),
        ("rows.csv", "left,prénom\na,é\n".encode("utf-16"), "pair", "it isn't UTF-8; save the file as UTF-8"),
        ("rows.jsonl", b'[\n  {"n": 1},\n  {"n": 2}\n]\n', "twice", "jq -c '.[]' rows.jsonl"),
        ("rows.json", b'[{"n": 1}, {"n": 2}]', "twice", "jq -c '.[]' rows.json"),
        (
            "notes.txt",
            b"a\nb\nc\n",
            "pair",
            "it was read as CSV, for its first line is no JSON, and so a heading",
        ),
        ("rows.jsonl", b'{"text": "a"}\n', "sure2", "expected str, or an object with 'left' alone"),
    ],
)
def test_a_file_that_is_none_of_rows(desk: Desk, name: str, content: bytes, flow: str, says: str):
    (desk.path / name).write_bytes(content)
    desk.change(
        "async def sure(",
        "async def sure2(left: str) -> str:\n    return left\n\n\n@segue.flow\nasync def sure(",
    )
    said = desk.segue("map", f"app.py:{flow}", name)
    assert said.code == 2
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert not (desk.path / "segue.db").exists()  # nothing is made


def test_a_key_that_no_row_has(desk: Desk):
    desk.write("rows.jsonl", '{"left": "a"}\n' * 30)
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--key", "id")
    assert said.code == 2
    assert "none of its first 20 rows" in said.err
    assert "no field 'id', which --key names; it has left" in said.err


def test_a_row_of_one_field_is_the_one_argument(desk: Desk):
    desk.write("rows.jsonl", '{"n": 5}\n6\n{"m": 7}\n')
    said = desk.segue("map", "app.py:twice", "rows.jsonl")
    assert said.code == 1
    assert [row.get("value") for row in said.rows] == [20, 24, None]
    assert [row["input"] for row in said.rows] == [5, 6, {"m": 7}]
    assert "expected int, or an object with 'n' alone: its fields are m" in said.rows[2]["error"]["message"]


def test_a_row_that_is_the_one_argument_without_a_default(desk: Desk):
    """As `engine.map` has it: so rows stay rows when the flow is given a parameter more, with a default."""
    desk.write("one.py", "import segue\n@segue.flow\nasync def say(left: str) -> str:\n    return left\n")
    desk.write("rows.jsonl", '"a"\n"b"\n')
    assert desk.segue("map", "one.py:say", "rows.jsonl", "--id", "j").code == 0
    desk.write(
        "two.py",
        "import segue\n@segue.flow(name='say')\nasync def say(left: str, right: int = 3) -> str:\n"
        "    return f'{left}:{right}'\n",
    )
    desk.write("rows.jsonl", '"a"\n"b"\n{"left": "c", "right": 4}\n7\n')
    said = desk.segue("map", "two.py:say", "rows.jsonl", "--id", "j")
    assert [row.get("value") for row in said.rows] == ["a", "b", "c:4", None]
    assert "argument 'left' of say: expected str" in said.rows[3]["error"]["message"]


def test_fewer_rows_than_before(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n3\n4\n")
    assert "4/4 done" in desk.segue("map", "app.py:twice", "rows.jsonl").err
    desk.write("rows.jsonl", "1\n2\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl")
    assert said.code == 0
    assert "4/4 done" in said.err
    assert "2 of them are of rows that rows.jsonl doesn't have now, and so not in the output" in said.err
    assert len(said.rows) == 2
    assert desk.segue("runs").out.splitlines()[1].split()[1] == "4"


def test_a_job_of_another_flow(desk: Desk):
    desk.write("rows.jsonl", "5\n")
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j").code == 0
    said = desk.segue("map", "app.py:steps", "rows.jsonl", "--id", "j")
    assert said.code == 2
    assert "job 'j' is one of 'twice', not of 'steps': give this one another id" in said.err


def test_a_job_of_another_flow_that_knows_its_rows_by_a_key(desk: Desk):
    """No key would cure that."""
    desk.write("rows.jsonl", '{"left": "a", "right": 5}\n')
    assert desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "j", "--key", "left").code == 0
    desk.write("numbers.jsonl", "1\n")
    said = desk.segue("map", "app.py:twice", "numbers.jsonl", "--id", "j")
    assert said.code == 2
    assert "job 'j' is one of 'pair', not of 'twice'" in said.err


def test_the_same_command_is_done_at_once(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n")
    first = desk.segue("map", "app.py:steps", "rows.jsonl")
    again = desk.segue("map", "app.py:steps", "rows.jsonl")
    assert first.code == again.code == 0
    assert first.out == again.out
    assert len((desk.path / "done.txt").read_text().splitlines()) == 10
    desk.write("rows.jsonl", "1\n2\n3\n")  # rows that are added are run
    assert [row["value"] for row in desk.segue("map", "app.py:steps", "rows.jsonl").rows] == [510, 1010, 1510]
    assert len((desk.path / "done.txt").read_text().splitlines()) == 15


def test_a_row_that_changed(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n")
    desk.segue("map", "app.py:twice", "rows.jsonl")
    desk.write("rows.jsonl", "1\n3\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl")
    assert said.code == 2
    assert "row 1" in said.err
    assert "give the job another id" in said.err
    assert not (desk.path / "out.jsonl").exists()


def test_keys(desk: Desk):
    desk.write(
        "rows.jsonl", '{"left": "x"}\n{"left": "y"}\n{"left": "x", "right": 1}\n{"right": 1}\n{"left": 1.5}\n'
    )
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--key", "left", "--id", "j", "-o", "out.jsonl")
    assert said.code == 1
    rows = desk.rows()
    assert [(row["key"], row.get("value")) for row in rows[:2]] == [("x", "x:3"), ("y", "y:3")]
    assert rows[2]["error"]["message"] == "line 3: line 1 has the key 'x' too"
    assert "has no field 'left'" in rows[3]["error"]["message"]
    assert "can't be a key: 1.5" in rows[4]["error"]["message"]


def test_keys_make_a_job_incremental(desk: Desk):
    desk.write("monday.jsonl", '{"left": "a"}\n{"left": "b"}\n')
    desk.write("tuesday.jsonl", '{"left": "c"}\n{"left": "b"}\n')
    how = ["--key", "left", "--id", "week"]
    assert [row["value"] for row in desk.segue("map", "app.py:pair", "monday.jsonl", *how).rows] == [
        "a:3",
        "b:3",
    ]
    said = desk.segue("map", "app.py:pair", "tuesday.jsonl", *how)
    assert said.code == 0
    assert [(row["index"], row["value"]) for row in said.rows] == [(0, "c:3"), (1, "b:3")]
    assert len(desk.segue("runs", "--job", "week", "--json").rows) == 3


def test_a_job_keeps_to_its_key(desk: Desk):
    """Under another key all rows would be new ones, to be paid once more."""
    desk.write("rows.jsonl", '{"left": "a", "right": 5}\n{"left": "b", "right": 6}\n')
    how = ["map", "app.py:pair", "rows.jsonl", "--id", "week"]
    assert desk.segue(*how, "--key", "left").code == 0
    forgotten = desk.segue(*how)
    assert forgotten.code == 2
    assert "such as 'a': give `--key left` as before, or another --id" in forgotten.err
    other = desk.segue(*how, "--key", "right")
    assert other.code == 2
    assert "knows its rows by another key, such as 'a', and not by 'right'" in other.err
    how[-1] = "numbered"
    assert desk.segue(*how).code == 0
    assert "knows its rows by number, such as '0'" in desk.segue(*how, "--key", "left").err
    assert len(desk.segue("runs", "--json", "--limit", "0").rows) == 4


def test_a_row_that_changed_under_its_key(desk: Desk):
    desk.write("rows.jsonl", '{"left": "a", "right": 5}\n')
    desk.segue("map", "app.py:pair", "rows.jsonl", "--key", "left")
    desk.write("rows.jsonl", '{"left": "a", "right": 6}\n')
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--key", "left")
    assert said.code == 2
    assert "key 'a': its input changed since the job began: a key is of one input" in said.err


def test_how_many_rows_changed_is_said(desk: Desk):
    pairs = [{"left": f"k{n}", "right": n} for n in range(40)]
    desk.write("rows.jsonl", "".join(f"{json.dumps(pair)}\n" for pair in pairs))
    assert desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "keyed", "--key", "left").code == 0
    assert desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "numbered").code == 0
    for pair in pairs[2:5] + pairs[25:35]:
        pair["right"] = 100
    desk.write("rows.jsonl", "".join(f"{json.dumps(pair)}\n" for pair in pairs))
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "keyed", "--key", "left")
    assert said.code == 2
    assert "row 2 of job 'keyed', key 'k2': its input changed" in said.err
    assert "refused too of the first 20: rows 3 (key 'k3'), 4 (key 'k4')\n" in said.err
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "numbered")
    assert "refused too of the first 20: rows 3, 4\n" in said.err
    for number in range(2, 5):
        pairs[number]["right"] = number
    desk.write("rows.jsonl", "".join(f"{json.dumps(pair)}\n" for pair in pairs))
    said = desk.segue("map", "app.py:pair", "rows.jsonl", "--id", "numbered")
    assert said.code == 2
    assert "row 25 of job 'numbered', key '25': its input changed" in said.err
    assert "refused too: rows 26, 27, 28, 29, 30 and 4 more\n" in said.err


def test_rows_on_standard_input(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):  # the same rows are the same job
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n")))
        said = desk.segue("map", "app.py:steps", "-")
        assert [row["value"] for row in said.rows] == [510, 1010]
    assert len((desk.path / "done.txt").read_text().splitlines()) == 10


def test_no_rows(desk: Desk):
    desk.write("rows.jsonl", "\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl")
    assert said.code == 0
    assert (desk.path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (["."], "it is a directory"),
        (["rows.jsonl", "-o", "no/dir/out.jsonl"], "there is no directory 'no/dir'"),
        (["rows.jsonl", "-o", "."], "it is a directory"),
    ],
)
def test_files_that_are_not_there(desk: Desk, words: list[str], says: str):
    desk.write("rows.jsonl", "1\n")
    said = desk.segue("map", "app.py:twice", *words)
    assert said.code == 2
    assert says in said.err
    assert not (desk.path / "segue.db").exists()


def test_what_is_read_isnt_written_over(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    (desk.path / "link.jsonl").symlink_to(desk.path / "rows.jsonl")
    app = (desk.path / "app.py").read_text()
    for output in ("rows.jsonl", "./rows.jsonl", "link.jsonl", "app.py"):
        said = desk.segue("map", "app.py:twice", "rows.jsonl", "-o", output)
        assert said.code == 2
        assert f"{output}: it is read too, and would be written over; choose another -o" in said.err
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl").code == 0
    assert desk.segue("advance", "app.py", "--job", "twice:rows.jsonl", "-o", "segue.db").code == 2
    assert desk.segue("compare", "twice:rows.jsonl", "out.jsonl", "-o", "out.jsonl").code == 2
    assert (desk.path / "rows.jsonl").read_text() == "1\n"
    assert (desk.path / "app.py").read_text() == app


def test_output_to_what_is_no_file(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    os.mkfifo(desk.path / "pipe")
    reads = os.open(desk.path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "pipe").code == 0
    assert b'"value":' in os.read(reads, 1000)
    os.close(reads)
    assert (desk.path / "pipe").is_fifo()
    desk.write("real.jsonl", "")
    (desk.path / "link.jsonl").symlink_to("real.jsonl")
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "link.jsonl").code == 0
    assert (desk.path / "link.jsonl").is_symlink()
    assert '"value":' in (desk.path / "real.jsonl").read_text()


def test_standard_output_that_is_full_is_named(desk: Desk):
    desk.write("rows.jsonl", "1\n")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "segue", "map", "app.py:twice", "rows.jsonl"],
            cwd=desk.path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert ended.returncode == 2
    assert (
        "standard output: it can't be written: No space left on device; make room, or give -o" in ended.stderr
    )


def test_rows_of_a_pipe(desk: Desk):
    for _ in range(2):  # the same rows are the same job
        reads, writes = os.pipe()
        os.write(writes, b"1\n2\n")
        os.close(writes)
        said = desk.segue("map", "app.py:steps", f"/dev/fd/{reads}")
        os.close(reads)
        assert [row["value"] for row in said.rows] == [510, 1010]
    assert len((desk.path / "done.txt").read_text().splitlines()) == 10


def test_two_columns_of_one_name(desk: Desk):
    desk.write("rows.csv", "n,n,,\n1,2,,\n")
    said = desk.segue("map", "app.py:twice", "rows.csv")
    assert said.code == 2
    assert "rows.csv: two of its columns are called 'n'; rename one" in said.err
    assert not (desk.path / "segue.db").exists()


def test_the_old_output_stays_until_the_new_one_is_whole(desk: Desk):
    desk.write("rows.jsonl", '"a"\n')
    desk.write("out.jsonl", "old")
    assert desk.segue("map", "app.py:sure", "rows.jsonl", "-o", "out.jsonl", "--no-wait").code == 3
    assert (desk.path / "out.jsonl").read_text() == "old"
    assert list(desk.path.glob("*.tmp")) == []


def test_batch(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", "".join(f'"row {n}"\n' for n in range(20)))
    said = desk.segue(
        "map",
        "app.py:triage",
        "rows.jsonl",
        "--batch",
        "--model",
        provider.model,
        "-o",
        "out.jsonl",
        "--json",
    )
    assert said.code == 0
    assert "20/20 done · wave 2" in said.err
    assert [row["value"].split("'")[1] for row in desk.rows()] == [f"row {n}" for n in range(20)]
    standing = json.loads(said.out)
    assert (standing["done"], standing["waves"], standing["unread"]) == (20, 2, 0)
    (line,) = desk.segue("receipt", "--json").rows[0]["lines"]
    assert (line["lane"], line["calls"]) == ("batch", 40)


def test_waves_are_the_jobs_own(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    words = ("map", "app.py:triage", "rows.jsonl", "--batch", "--model", provider.model)
    for job in ("first", "second"):
        assert desk.segue(*words, "--id", job).code == 0
    assert "2/2 done · wave 2" in desk.segue(*words, "--id", "first").err


def test_no_process_need_stay(desk: Desk, provider: Provider):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    words = [
        "map",
        "app.py:triage",
        "rows.jsonl",
        "--batch",
        "--model",
        provider.model,
        "-o",
        "out.jsonl",
        "--no-wait",
    ]
    said = desk.segue(*words)
    assert said.code == 3
    assert "2 waiting for batch" in said.err
    assert not (desk.path / "out.jsonl").exists()
    job = "triage:rows.jsonl"
    codes = []
    while not codes or codes[-1] == 3:
        codes.append(desk.segue("advance", "app.py", "--job", job, "-o", "out.jsonl").code)
        assert len(codes) < 200
    assert codes[-1] == 0
    advanced = desk.rows()
    assert [row["input"] for row in advanced] == ["a", "b"]
    assert desk.segue(*words).code == 0  # the map itself ends as the sweep did
    assert desk.rows() == advanced


LEADS = """
from dataclasses import dataclass
import segue

@dataclass
class Lead:
    name: str
    score: int = 0

@segue.flow
async def score(lead: Lead, lang: str = "en") -> str:
    return f"{lead.name} {lead.score} {lang}"
"""


def test_rows_that_are_the_one_argument_without_a_default(desk: Desk):
    desk.write("leads.py", LEADS)
    desk.write("leads.csv", "name,score\nada,\nbob,7\n")
    rows = ({"name": "ada"}, {"lead": {"name": "bob"}, "lang": "fr"}, {"name": "eve", "age": 5})
    desk.write("leads.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    for key in ((), ("--key", "name")):
        said = desk.segue("map", "leads.py:score", "leads.csv", "--id", f"csv{len(key)}", *key)
        assert [row["value"] for row in said.rows] == ["ada 0 en", "bob 7 en"]
    assert [row["key"] for row in said.rows] == ["ada", "bob"]
    found = desk.segue("map", "leads.py:score", "leads.jsonl", "--id", "json").rows
    assert [row.get("value") for row in found] == ["ada 0 en", "bob 0 fr", None]
    assert "Lead has no field 'age'; its fields are name, score" in found[2]["error"]["message"]
    desk.write("keyed.jsonl", '{"name": "fay", "id": 1}\n')
    found = desk.segue("map", "leads.py:score", "keyed.jsonl", "--id", "keyed", "--key", "id").rows
    assert [(row["key"], row["value"]) for row in found] == [("1", "fay 0 en")]


def test_a_sweep_tells_of_rows_that_became_no_run(desk: Desk):
    desk.write("rows.jsonl", '1\n"two"\n3\n')
    words = ("map", "app.py:twice", "rows.jsonl", "--id", "t", "-o", "out.jsonl")
    assert desk.segue(*words, "--no-wait").code == 1
    mapped = desk.rows()
    assert [row["index"] for row in mapped] == [0, 1, 2]
    said = desk.segue("advance", "app.py", "--job", "t", "-o", "out.jsonl")
    assert said.code == 1  # as the map itself
    assert (
        "  1 row became no run, since it can't be read, and is not in out.jsonl: the same `segue map`"
        in said.err
    )
    assert desk.rows() == [mapped[0], mapped[2]]
    assert desk.segue("advance", "app.py", "--job", "t", "--json").code == 1
    assert desk.segue("advance", "app.py").code == 0  # of all runs, none has failed


def test_a_sweep_tells_of_rows_that_were_never_read(desk: Desk):
    async def cut_off() -> None:
        async with segue.Engine("sqlite:segue.db", worker=False) as engine:
            await engine.store.put_job(JobHead("cut", "twice", 1.0))  # as a map does before its first row

    asyncio.run(cut_off())
    said = desk.segue("advance", "app.py", "--job", "cut")
    assert said.code == 1
    assert "what read its rows was cut off" in said.err


def test_no_wait_of_what_needs_no_waiting(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "--no-wait")
    assert said.code == 0
    assert [row["value"] for row in said.rows] == [4, 8]


def test_advance_says_what_is_left(desk: Desk):
    assert desk.segue("run", "app.py:sure", "hi").code == 3
    said = desk.segue("advance", "app.py", "--json")
    assert said.code == 3
    assert said.rows == [{"parked": 1}]
    said = desk.segue("advance", "app.py", "--job", "nope")
    assert said.code == 2
    assert "there is no job 'nope'" in said.err


def test_a_line_of_progress_is_said_once(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segue.cli.progress.EVERY", 0.0)
    desk.write("rows.jsonl", '"a"\n"b"\n')
    said = desk.segue("map", "app.py:sure", "rows.jsonl", "--no-wait")
    assert said.code == 3
    assert said.err.count("0/2 done · 2 waiting for people, time or other runs") == 1


def test_advance_fails_where_runs_failed(desk: Desk):
    desk.write("rows.jsonl", "7\n")
    desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    said = desk.segue("advance", "app.py")
    assert said.code == 1
    assert "1 failed" in said.err
    assert desk.segue("advance", "app.py", "--job", "j").code == 1


TYPED = """
from dataclasses import dataclass
import segue

@dataclass
class Ticket:
    text: str
    mood: str = "calm"

@segue.flow
async def typed(ticket: Ticket) -> str:
    return f"{ticket.text}, {ticket.mood}"

@segue.flow
async def plain(text: str) -> str:
    return text

@segue.flow
async def nothing() -> str:
    return "x"
"""


@pytest.mark.parametrize("flow", ["typed", "plain"])
def test_a_key_that_the_flow_doesnt_take(desk: Desk, flow: str):
    desk.write("typed.py", TYPED)
    desk.write("rows.jsonl", '{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n')
    words = ("map", f"typed.py:{flow}", "rows.jsonl", "--key", "id", "-o", "out.jsonl")
    assert desk.segue(*words).code == 0
    assert [(row["key"], row["value"][0]) for row in desk.rows()] == [("a", "x"), ("b", "y")]


def test_a_field_that_the_type_doesnt_have(desk: Desk):
    desk.write("typed.py", TYPED)
    desk.write("rows.jsonl", '{"text": "x"}\n{"text": "y", "mod": "angry"}\n')
    assert desk.segue("map", "typed.py:typed", "rows.jsonl", "-o", "out.jsonl").code == 1
    assert "Ticket has no field 'mod'; its fields are text, mood" in desk.rows()[1]["error"]["message"]


def test_a_row_that_cant_be_read_has_its_number_for_a_key(desk: Desk):
    desk.write("rows.jsonl", '1\n"two"\nnot JSON\n')
    desk.segue("map", "app.py:twice", "rows.jsonl", "-o", "out.jsonl")
    assert [row["key"] for row in desk.rows()] == ["0", "1", "2"]


def test_several_flows_and_none_is_named(desk: Desk):
    desk.write("typed.py", TYPED)
    desk.write("rows.jsonl", "1\n")
    said = desk.segue("map", "typed.py", "rows.jsonl")
    assert said.code == 2
    assert "name one of typed.py: `typed.py:typed`, `typed.py:plain`" in said.err
    assert "it has no parameters: a row is {}" in desk.segue("map", "typed.py:nothing", "rows.jsonl").err


def test_a_map_leaves_where_only_people_are_waited_for_and_nobody_is_here(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    said = desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j")
    assert said.code == 3
    assert "2 ask: `segue runs --asks` lists questions, `segue answer` answers" in said.err
    for ask in desk.segue("runs", "--asks", "--json").rows:
        desk.segue("answer", ask["id"], "y")
    assert desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j").code == 0


def test_it_says_how_failed_rows_are_tried_again(desk: Desk):
    desk.write("rows.jsonl", "7\n1\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    assert said.code == 1
    assert "once more: `segue resume --all-like j/0`, then the same command" in said.err


def test_bad_answers_of_rows_are_asked_for_again_within_their_job(desk: Desk, provider: Provider):
    provider.simulator.when("Classify: odd").reply("neither", "neither", "neither", "bug")
    provider.simulator.when("Classify: even").reply("bug")
    provider.simulator.when("Answer").reply("done")
    desk.write("rows.jsonl", '"odd"\n"even"\n')
    words = ("map", "app.py:triage", "rows.jsonl", "--id", "j", "--model", provider.model, "-o", "out.jsonl")
    assert desk.segue(*words).code == 1
    paid = len(provider.simulator.ledger.lines())
    said = desk.segue("resume", "--job", "j", "--from", "generat")
    assert said.code == 2
    assert "no call 'generat'" in said.err
    assert "the calls are generate" in said.err
    assert desk.segue("resume", "--job", "j", "--from", "generate").code == 0
    assert desk.segue(*words).code == 0
    assert [row["value"] for row in desk.rows()] == ["done", "done"]
    assert len(provider.simulator.ledger.lines()) == paid + 2
    said = desk.segue("resume", "j/0", "--from", "generate")
    assert "run 'j/0' is done; only held, failed or cancelled ones can be resumed" in said.err


def test_an_answer_that_was_no_use_is_kept_so_another_model_is_the_cure(desk: Desk, provider: Provider):
    provider.simulator.when("Classify: odd").reply("neither")
    desk.write("rows.jsonl", '"odd"\n')
    words = ("map", "app.py:triage", "rows.jsonl", "--id", "j", "--model", provider.model)
    cure = "segue resume --all-like j/0 --from CALL"
    assert (
        f"the answer is kept; for another one, of this model or with --model: `{cure}`"
        in desk.segue(*words).err
    )
    assert (
        f"the answer is kept; for another one, of this model or with --model: {cure}"
        in desk.segue("runs", "--failed").out
    )
    paid = len(provider.simulator.ledger.lines())
    desk.segue("resume", "j/0")
    assert desk.segue(*words).code == 1  # once more is of no use
    assert len(provider.simulator.ledger.lines()) == paid
    desk.segue("resume", "j/0", "--model", provider.model.replace(":test@", ":other@"))
    desk.segue(*words)
    assert {line.model for line in provider.simulator.ledger.lines()[paid:]} == {"other"}


def test_errors_that_differ_in_their_data_are_one_cause(desk: Desk):
    desk.change("return n * 2", "raise KeyError(n, ['city', 'land', 'sea', 'air', 'moon'][n])")
    desk.write("rows.jsonl", "0\n1\n2\n3\n4\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    assert "  5 × KeyError: (0, 'city')\n" in said.err
    assert "once more: `segue resume --all-like j/0`" in said.err


def test_causes_that_are_not_told_are_counted(desk: Desk):
    desk.change("return n * 2", "raise [KeyError, ValueError, TypeError, OSError, IndexError][n]('x')")
    desk.write("rows.jsonl", "0\n1\n2\n3\n4\n")
    said = desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j")
    assert "  2 × for other causes: `segue runs --job j --failed` has them all\n" in said.err


def test_unread_rows_of_a_map_that_writes_nothing(desk: Desk):
    desk.write("rows.jsonl", '"one"\n"two"\n3\n')
    said = desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j", "--no-wait")
    assert "1 row can't be read; the same without --no-wait writes why" in said.err


def test_lines_of_a_provider_that_cant_be_reached(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    how = ("--batch", "--no-wait", "--model", "openai:any@http://127.0.0.1:9/v1")
    said = desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "j", *how)
    assert said.code == 3
    assert "wave 1 (2 lines not sent yet)" in said.err
    assert "lines back" not in said.err


def test_rows_for_which_no_model_was_named(desk: Desk, provider: Provider):
    """The cure that is told cures: what they were begun without can't be added by the same command."""
    desk.write("rows.jsonl", '"a"\n"b"\n')
    said = desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "j")
    assert "once more: `segue resume --all-like j/0 --model openai:gpt-5-mini`, then the same" in said.err
    said = desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "j", "--model", provider.model)
    assert "or for runs that are resumed with them" in said.err
    desk.segue("resume", "--all-like", "j/0", "--model", provider.model)
    assert desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "j").code == 0


def test_rows_whose_key_was_refused_are_held(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch):
    provider.simulator._key = "sk-right-123456789"
    monkeypatch.setenv("MY_KEY", "sk-wrong-123456789")
    desk.write("rows.jsonl", '"a"\n"b"\n')
    words = ("map", "app.py:triage", "rows.jsonl", "--id", "j", "--model", f"{provider.model}#MY_KEY")
    said = desk.segue(*words)
    assert said.code == 1
    assert "2 held" in said.err
    said = desk.segue("runs", "--failed")
    assert "2 held, such as j/" in said.out
    assert "the key was refused" in said.out
    assert "--keep" not in said.out
    monkeypatch.setenv("MY_KEY", "sk-right-123456789")
    assert desk.segue("resume", "--all-like", "j/0").code == 0
    assert desk.segue(*words).code == 0


# ---------------------------------------------------------------- CSV on standard input
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('left,right\n"a, b",1\nc,\n', ["a, b:1", "c:3"]),
        ("\ufeffleft\tright\r\na, b\t1\r\n", ["a, b:1"]),
        ('"left","right"\n"a","1"\n', ["a:1"]),
        ('{"left": "a"}\n{"left": "b", "right": 1}\n', ["a:3", "b:1"]),
    ],
)
def test_csv_on_standard_input_is_told_by_its_heading(desk: Desk, text: str, values: list[str]):
    said = desk.finish(desk.start("map", "app.py:pair", "-", stdin=subprocess.PIPE), text)
    assert said.code == 0
    assert [row["value"] for row in said.rows] == values


def test_what_was_taken_for_csv_says_so(desk: Desk):
    said = desk.finish(
        desk.start("map", "app.py:triage", "-", stdin=subprocess.PIPE), "My invoice\nIt crashed\n"
    )
    assert said.code == 2
    assert said.err.startswith(
        "segue: standard input: its one row doesn't fit triage: line 2: row for triage:"
    )
    assert "it was read as CSV, for its first line is no JSON, and so a heading" in said.err
    assert not (desk.path / "segue.db").exists()


def test_broken_json_is_not_taken_for_csv(desk: Desk):
    said = desk.finish(desk.start("map", "app.py:triage", "-", stdin=subprocess.PIPE), '{"ticket": "a"\n')
    assert said.code == 2
    assert "it isn't JSON" in said.err
    assert "CSV, for" not in said.err


def test_a_file_without_a_telling_name_may_be_csv(desk: Desk):
    desk.write("rows.txt", "left,right\na,1\n")
    said = desk.segue("map", "app.py:pair", "rows.txt")
    assert [row["value"] for row in said.rows] == ["a:1"]
    desk.write("bad.csv", "left,right\na\n")
    said = desk.segue("map", "app.py:pair", "bad.csv")
    assert "1 cells under 2 headings" in said.err
    assert "one list" not in said.err


def test_a_job_that_was_begun_with_other_rows_begins_no_more(desk: Desk):
    desk.write("rows.jsonl", "1\n2\n")
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "j").code == 0
    desk.write("others.jsonl", "1\n3\n4\n5\n")
    said = desk.segue("map", "app.py:twice", "others.jsonl", "--id", "j")
    assert said.code == 2
    assert "row 1 of job 'j', key '1': its input changed since the job began: know rows by a key" in said.err
    assert "refused too" not in said.err
    assert len(desk.segue("runs", "--job", "j", "--json").rows) == 2  # none of rows 2 and 3 was made
    said = desk.segue("map", "app.py:steps", "rows.jsonl", "--id", "j")
    assert said.code == 2
    assert "job 'j' is one of 'twice', not of 'steps': give this one another id" in said.err


def test_a_file_without_rows_says_so(desk: Desk):
    desk.write("none.jsonl", "\n")
    assert "  none.jsonl has no rows\n" in desk.segue("map", "app.py:twice", "none.jsonl").err
    desk.write("none.csv", "n\n")
    assert (
        "  none.csv has no rows, but for its heading\n" in desk.segue("map", "app.py:twice", "none.csv").err
    )


def test_a_file_of_another_encoding_says_so(desk: Desk):
    (desk.path / "rows.jsonl").write_bytes('"a"\n"b"\n'.encode("utf-16"))
    assert (
        "line 1: it isn't UTF-8; save the file as UTF-8" in desk.segue("map", "app.py:sure", "rows.jsonl").err
    )


@pytest.mark.parametrize("how", [(), ("--no-wait",)])
def test_what_else_is_ready_goes_on_and_is_told(desk: Desk, how: tuple[str, ...]):
    desk.segue("run", "app.py:twice", "1", "--id", "a", "--no-wait")
    desk.write("rows.jsonl", "1\n2\n")
    said = desk.segue("map", "app.py:steps", "rows.jsonl", "--id", "j", *how)
    assert said.code == 0
    assert said.err.count("  run 'a' was ready in this store: it, and what else is, goes on here too\n") == 1
    desk.write("more.jsonl", "1\n2\n3\n")
    said = desk.segue("map", "app.py:steps", "more.jsonl", "--id", "j", *how)
    assert (said.code, "goes on here too" in said.err) == (0, False)
