"""The conversations in Inspect AI, by its batch mode: `on_inspect.py URL RUNS JOB FOLDER [ATTEMPT_TIMEOUT]`.

As its documentation has it for work that is to go on after a crash: an eval set with a log directory, which takes up
what was logged of samples that ended, and its cache for answers of samples that didn't. Every retry that it has is on:
of a call (without end, as it comes), of a sample, of the eval.
"""

import importlib.metadata
import os
import sys

from talk import TURNS, Told, first


def main(url: str, runs: int, job: int, folder: str, timeout: int | None) -> None:
    os.environ |= {"INSPECT_CACHE_DIR": f"{folder}/cache", "INSPECT_TRACE_FILE": f"{folder}/trace.log"}
    from inspect_ai import Task, eval_set
    from inspect_ai.dataset import Sample
    from inspect_ai.model import BatchConfig, CachePolicy, ChatMessageUser, GenerateConfig, get_model
    from inspect_ai.solver import Generate, TaskState, solver

    told = Told(folder)
    batch = BatchConfig(size=job, max_size=job, send_delay=0.5, tick=0.25)
    config = GenerateConfig(batch=batch, max_connections=runs, attempt_timeout=timeout)
    model = get_model("openai/gpt-4o-mini", base_url=url, api_key="any", responses_api=False, config=config)

    @solver
    def talk():
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            number = int(state.sample_id)
            said = first(number)
            try:
                for _ in range(TURNS):
                    output = await model.generate(
                        [ChatMessageUser(content=said)], cache=CachePolicy(expiry=None)
                    )
                    said = output.completion
            except Exception as error:
                told.end(number, None, error)
                raise
            told.end(number, said)
            return state

        return solve

    samples = [Sample(id=number, input=first(number)) for number in range(runs)]
    done, _ = eval_set(
        Task(dataset=samples, solver=talk(), name="talk"),
        log_dir=f"{folder}/logs",
        model=model,
        retry_attempts=3,
        retry_on_error=3,
        fail_on_error=False,
        continue_on_fail=True,
        max_samples=runs,
        display="plain",
        score=False,
    )
    print("done" if done else "not done")


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        print(*(f"{name} {importlib.metadata.version(name)}" for name in ("inspect_ai", "openai")), sep=", ")
    else:
        timeout = int(sys.argv[5]) if sys.argv[5:] else None
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], timeout)
