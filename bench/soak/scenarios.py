"""What goes wrong: one kind of fault at a time, then all of them by chance."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """`words` are those of `segue simulate`. `kills`: at the first job, or once such a share of all lines is paid.

    `spoils` is how many answers at most are paid and can't be read by anybody; None where that is drawn.
    """

    name: str
    what: str
    words: tuple[str, ...] = ()
    spoils: int | None = 0
    kills: tuple[str | float, ...] = ()
    limit: float = 240.0


def fault(name: str, what: str, *orders: str, spoils: int = 0, words: tuple[str, ...] = ()) -> Scenario:
    return Scenario(name, what, (*words, *(word for order in orders for word in ("--fault", order))), spoils)


def scenarios(job: int) -> tuple[Scenario, ...]:
    """All of them, where so many lines are in a job."""
    create = "on='/v1/batches'"
    mixed = ("--chaos", "0.1", "--window", "10")
    return (
        Scenario("none", "nothing; results are shuffled, as always"),
        fault("missing", "5 lines are in no file", "drop_line(times=5)", spoils=5),
        fault("unknown", "5 results have ids that nobody asked for", "wrong_id(times=5)", spoils=5),
        fault("doubled", "5 results are told twice", "double_line(times=5)"),
        fault("zero", "5 lines end with status 0", "fail_line(times=5, status=0)"),
        fault("errors", "5 lines end with status 500", "fail_line(times=5)"),
        fault("half", "an output file ends in the middle of a line", "half_line", spoils=1),
        fault("no-file", "a job is completed without a file", "no_output_file", spoils=job),
        fault("empty-id", 'the error file\'s id is `""`', "empty_error_file_id(3)"),
        fault("rejected", "a job fails its validation", "fail_batch('server_error')"),
        fault("quota", "2 jobs fail for the token quota", "fail_batch('token_limit_exceeded', times=2)"),
        fault("expired", "2 jobs expire half done", "expire_batch(2, done=0.5)"),
        fault("stuck", "a job stays at 0 of N until it expires", "stall_batch", words=("--window", "10")),
        fault("late", "2 jobs are validated 5 s late", "late_validation(5, 2)"),
        fault("html", "3 answers about jobs are a proxy's HTML page", f"reply_html(3, {create})"),
        fault("429", "4 answers about jobs are 429", f"fail(4, status=429, retry_after=1, {create})"),
        fault("500", "5 answers are 500", "fail(5)"),
        fault("closed", "4 connections are closed before an answer", "close_connection(4)"),
        fault("lost", "the answer to a submission is lost", f"lose_reply({create})"),
        Scenario("killed", "SIGKILL three times, each time the same command again", kills=(0.2, 0.5, 0.8)),
        Scenario(
            "killed-submitting",
            "SIGKILL before the answer to a submission, and the same command again",
            ("--fault", f"lose_reply({create})"),
            kills=("job",),
        ),
        *(
            Scenario(f"mix-{seed}", f"all of it by chance, seed {seed}", (*mixed, "--seed", seed), None)
            for seed in ("1", "2", "3")
        ),
        Scenario(
            "mix-killed",
            "all of it by chance, and SIGKILL three times",
            (*mixed, "--seed", "4"),
            None,
            (0.2, 0.5, 0.8),
        ),
    )
