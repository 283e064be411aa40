"""What runs in a stream: a completion, the events of a task, the cancelling of one. Each is one request of its own."""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pydantic import ValidationError

from apps.access.authentication import Caller
from apps.completions import chat
from apps.completions.schemas.chat import ChatRequest
from apps.core import errors, field_paths, request_context
from apps.core.database import in_db
from apps.providers.contract import Json
from apps.streaming import frames
from apps.streaming.schemas import CancelTask, CreateCompletion, ResumeCompletion, SubscribeTask
from apps.tasks import events, queries
from apps.tasks.lifecycle.cancel import cancel

Put = Callable[[str], Awaitable[None]]
# Puts frames, and returns the one that is put when the stream's id is free again. Raises RedriveError.
Work = Callable[[Caller, Put], Coroutine[Any, Any, str | None]]


def completion(message: CreateCompletion, *, end_user: str) -> Work:
    """The chunks of a completion, then its totals: admitted, booked and logged as over HTTP."""

    async def work(caller: Caller, put: Put) -> str:
        if message.durable:
            raise errors.InvalidRequest("`durable` is not available yet: leave it out.", param="durable")
        stream = await chat.open_stream(caller, chat_request(message.request), end_user=end_user)
        request_context.current().status = 200
        try:
            number = 0
            while (piece := await stream.next()) is not None:
                number += 1
                await put(frames.chunk(message.stream_id, number, piece))
        finally:
            await stream.close()
        return frames.completed(message.stream_id, "completed", request_context.current())

    return work


def resumption(message: ResumeCompletion) -> Work:
    """Refused."""

    async def work(_: Caller, __: Put) -> None:
        raise errors.InvalidRequest("`completion.resume` is not available yet.", param="type")

    return work


def subscription(message: SubscribeTask) -> Work:
    """The events of a task after those that the client has, until it has ended."""

    async def work(caller: Caller, put: Put) -> None:
        task_id = queries.task_id(message.task_id)
        found = events.follow(caller.project_id, task_id, starting_after=message.starting_after)
        async with contextlib.aclosing(found):
            async for event in found:
                request_context.current().status = 200
                await put(frames.task_event(message.stream_id, event.id, event.body()))

    return work


def cancelling(message: CancelTask) -> Work:
    """A task is called off. Who watches it sees that; only a refusal is answered, with the task's id in its details."""

    async def work(caller: Caller, _: Put) -> None:
        try:
            await in_db(cancel, queries.task_id(message.task_id), project_id=caller.project_id)
        except errors.RedriveError as error:
            error.details = {**(error.details or {}), "task_id": message.task_id}
            raise
        request_context.current().status = 200

    return work


def chat_request(body: Json) -> ChatRequest:
    """The validated request, as a stream. Raises InvalidRequest with the path of the field within it."""
    if body.get("stream") is False:
        raise errors.InvalidRequest("Completions are streamed here: leave `stream` out.", param="stream")
    if body.get("stream") is None:
        body = {**body, "stream": True}
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        complaint = error.errors(include_url=False, include_input=False)[0]
        raise field_paths.invalid(complaint, complaint["loc"], body) from None
