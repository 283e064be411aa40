"""The kind `chat_completion`: arguments are the body of `POST /v1/chat/completions`."""

from typing import Any

from apps.access.authentication import Caller, caller_of
from apps.completions import chat, spending
from apps.completions.assembly import Assembly
from apps.completions.schemas.chat import ChatRequest, StreamOptions
from apps.core.errors import InvalidApiKey
from apps.tasks.attempt import Run
from apps.tasks.handlers.terms import of_task
from apps.tasks.kinds import Kind

Json = dict[str, Any]


async def check(caller: Caller, args: ChatRequest) -> None:
    """Refuse what a live call would refuse before it calls."""
    chat.check(args, await spending.find_route(caller, args.model))


async def handle(run: Run, args: ChatRequest) -> Json:
    """The result of a chat task. With `stream: true` its text can be read along while it comes."""
    if run.task.api_key_id is None:
        raise InvalidApiKey()
    caller = await caller_of(run.task.api_key_id)
    if args.stream:
        response = await _streamed(run, caller, args)
    else:
        request = args.model_copy(update={"stream": None, "stream_options": None})
        response = await chat.create(caller, request, end_user=run.task.end_user, terms=of_task(run))
    return _result(response, run)


async def _streamed(run: Run, caller: Caller, args: ChatRequest) -> Json:
    # Usage is asked for, for the result; whether the client asked for it in a stream it does not get is no matter.
    request = args.model_copy(update={"stream_options": StreamOptions(include_usage=True)})
    stream = await chat.open_stream(caller, request, end_user=run.task.end_user, terms=of_task(run))
    whole = Assembly()
    try:
        while (chunk := await stream.next()) is not None:
            whole.add(chunk)
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    run.text(text, choice["index"])
            if run.soft_limit.is_set():
                run.partial = {"content": whole.text(), "response": whole.completion()}
    finally:
        await stream.close()
    return whole.completion()


def _result(response: Json, run: Run) -> Json:
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


KIND = Kind("chat_completion", ChatRequest, handle, public=True, check=check)
