"""The kind `chat_completion`: arguments are the body of `POST /v1/chat/completions`."""

from typing import Any

from apps.access.authentication import caller_of
from apps.completions import chat
from apps.completions.schemas.chat import ChatRequest
from apps.core.errors import InvalidApiKey
from apps.tasks.attempt import Run
from apps.tasks.handlers.terms import of_task
from apps.tasks.kinds import Call, Kind

Json = dict[str, Any]


async def handle(run: Run, args: ChatRequest) -> Json:
    """The result of api.md: status, content, model, usage, latency_ms, cost_usd, response."""
    if run.task.api_key_id is None:
        raise InvalidApiKey()
    caller = await caller_of(run.task.api_key_id)
    request = args.model_copy(update={"stream": None, "stream_options": None})
    response = await chat.create(caller, request, end_user=run.task.end_user, terms=of_task(run))
    choices = response["choices"]
    return {
        "status": "completed",
        "content": choices[0]["message"].get("content") if choices else None,
        "model": response["model"],
        "usage": {
            "input_tokens": response["usage"]["prompt_tokens"],
            "output_tokens": response["usage"]["completion_tokens"],
        },
        "latency_ms": sum(entry.latency_ms for entry in run.entries),
        "cost_usd": response["cost_usd"],
        "response": response,
    }


def call(args: ChatRequest) -> Call:
    """What an attempt asks of its upstream."""
    return Call(chat.OPERATION, args.model, max(1, args.characters() // 4))


KIND = Kind("chat_completion", ChatRequest, handle, public=True, call=call)
