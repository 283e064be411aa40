"""The kind `embeddings`: arguments are the body of `POST /v1/embeddings`."""

from typing import Any

from apps.access.authentication import Caller, caller_of
from apps.completions import embeddings, spending
from apps.completions.schemas.embeddings import EmbeddingsRequest
from apps.core.errors import InvalidApiKey
from apps.tasks.attempt import Run
from apps.tasks.handlers.terms import of_task
from apps.tasks.kinds import Kind

Json = dict[str, Any]


async def check(caller: Caller, args: EmbeddingsRequest) -> None:
    """Refuse what a live call would refuse before it calls."""
    spending.refuse_unknown_fields(args, await spending.find_route(caller, args.model))


async def handle(run: Run, args: EmbeddingsRequest) -> Json:
    """The result of api.md: status, model, usage, cost_usd, response."""
    if run.task.api_key_id is None:
        raise InvalidApiKey()
    caller = await caller_of(run.task.api_key_id)
    response = await embeddings.create(caller, args, end_user=run.task.end_user, terms=of_task(run))
    return {
        "status": "completed",
        "model": response["model"],
        "usage": {"input_tokens": response["usage"]["prompt_tokens"], "output_tokens": 0},
        "cost_usd": response["cost_usd"],
        "response": response,
    }


KIND = Kind("embeddings", EmbeddingsRequest, handle, public=True, check=check)
