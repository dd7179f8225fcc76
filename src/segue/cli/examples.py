"""What each command looks like in use: the end of its help."""

from __future__ import annotations

EXAMPLES = {
    "run": """\
  segue run app.py:triage "My invoice is wrong" --model openai:gpt-5-mini
  segue run app.py:pair left=a right=4                   arguments by name; or in order, a 4
  segue run app.py:triage --input letter.txt --id ada    a run with a name: the same command goes on
  segue run app.py:triage "It crashed" --batch --no-wait
                                                         left to a worker, or to `segue advance`

Ctrl-C parks it: what was done is kept, and it says how to go on.""",
    "map": """\
  segue map app.py:triage tickets.jsonl --batch -o out.jsonl --model openai:gpt-5-mini
  segue map app.py:triage tickets.csv --key id           rows are known by id, not by their number
  segue map app.py:triage tickets.jsonl --batch=6h       what isn't back by then is sent live
  cat tickets.csv | segue map app.py:triage - > out.jsonl

A row of JSON lines is "a text", or {"ticket": "a text"}; of CSV, what stands under the heading ticket. Kill it at any
time: the same command goes on where it ended.""",
    "advance": """\
  segue advance app.py                                   run what is ready, submit, poll, deliver
  segue advance app.py --job nightly -o out.jsonl        and write a job's output once it is done
  until segue advance app.py; do sleep 60; done          3 means that something still waits

Give every file whose flows wait; what comes back can't be run without its code.""",
    "plan": """\
  segue plan app.py:triage tickets.jsonl                 judged by earlier runs in the store
  segue plan app.py:triage tickets.jsonl --sample 20 --model openai:gpt-5-mini
                                                         the first 20 rows are run live, and paid for
  segue plan app.py:triage tickets.jsonl --deadline 6h --budget 5""",
    "worker": """\
  segue worker app.py                                    stays, and runs what is ready
  segue worker app.py crew.py --json >> ended.jsonl      a line for each run that ends""",
    "runs": """\
  segue runs                                             jobs, runs, and what each waits for
  segue runs --asks                                      questions; `segue answer ASK VALUE`
  segue runs --failed                                    why, and how to have them go on
  segue runs --job triage:tickets.jsonl --status parked
  segue runs --json --limit 0 | jq .status""",
    "diagram": """\
  segue diagram app.py:Review                            its states, and what leads from each
  segue diagram app.py:Review --run review-1f0c          with the state in which that run is""",
    "show": """\
  segue show triage-1f0c                                 its calls, with times, tokens and outcomes
  segue show triage-1f0c --call 2                        what was asked, and what came of it
  segue show assistant/ada --history                     of an actor, its past turns too""",
    "answer": """\
  segue answer ada:2 yes                                 the question of that id
  segue answer ada no                                    a run's will do, if it asks just one
  segue answer ada:2 'edit: {"usd": 50}'                 of a tool that asks to be called""",
    "tell": """\
  segue tell assistant/ada app.py:Say '{"text": "Hello"}'
  segue tell assistant/ada Forget '{}'                   without its file nothing is checked""",
    "dead": """\
  segue dead                                             what nobody took, and why
  segue dead --resend 3                                  once more, say after a fix
  segue dead --drop 3 --drop 4""",
    "resume": """\
  segue resume triage-1f0c                               failed: the call that failed is made anew
  segue resume triage-1f0c --rerun                       held: what differs now is made anew
  segue resume triage-1f0c --from generate               a bad answer: the model is asked once more
  segue resume --all-like nightly/17 --keep              all held like it: keep what was paid for
  segue resume nightly/17 --budget 10                    held for money: what it may cost in all""",
    "cancel": """\
  segue cancel triage-1f0c
  segue cancel --job nightly                             all of its runs that go on""",
    "fork": """\
  segue fork triage-1f0c --before 2                      what came before call 2 is shared
  segue fork triage-1f0c --edit '0={"topic": "bug", "urgent": true}'
                                                         as if that call had come out so
  segue fork --job nightly --from generate --dry-run     of all its runs; tells the price""",
    "replay": """\
  segue replay app.py triage-1f0c                        does today's code do what it did?
  segue replay app.py triage-1f0c --pdb                  step through it
  segue replay app.py triage-1f0c --against batch        would batch ask the same?""",
    "check": """\
  segue check app.py                                     before you deploy: who would be held
  segue check app.py:triage                              the runs of one flow""",
    "compare": """\
  segue compare mini large                               two jobs over the same rows
  segue compare mini labels.csv --by id                  a job and what is right""",
    "remove": """\
  segue remove triage-1f0c                               with all that it started
  segue remove --job triage:tickets.jsonl                a job goes as a whole
  segue remove --older-than 90d --dry-run                how many have been over for so long
  segue remove --older-than 90d

What is removed is begun and paid anew where its id, or its row, comes again.""",
    "forget": """\
  segue forget --older-than 30d""",
    "receipt": """\
  segue receipt                                          of all that is in the store
  segue receipt --job triage:tickets.jsonl
  segue receipt triage-1f0c                              of a run and those that it started""",
    "export": """\
  segue export triage-1f0c -o bug.jsonl                  for `segue.testing.rerun` in a test
  segue export --job nightly -o histories""",
    "simulate": """\
  segue simulate --port 8377 --batch-time 3              then OPENAI_BASE_URL=http://127.0.0.1:8377/v1
  segue simulate --fault 'fail(3, status=429)'           the next three requests are refused""",
}
