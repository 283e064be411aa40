"""The routes under /v1/tasks. Thin: parse, one verb, render."""

import re
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from ninja import Query, Router
from pydantic import BaseModel

from apps.access import idempotency
from apps.access.way_in import caller_of, end_user_of
from apps.completions.sse import stopping
from apps.core import errors, json_codec
from apps.core.database import in_db
from apps.core.lean_asgi import ByteStreamResponse
from apps.providers.bounded import Buffer
from apps.tasks import accept, events, kinds, queries, sse, states
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.schemas import (
    MOST_METADATA,
    AcceptedTask,
    AttemptList,
    ChatTask,
    EmbeddingsTask,
    NewTaskBody,
    TaskList,
    TaskStatus,
    Wishes,
)
from apps.tasks.waiters import waiters

router = Router(tags=["Tasks"])

LONGEST_WAIT = 60.0  # seconds
Json = dict[str, Any]
FILTERS = {"limit", "after", "status", "kind", "priority", "created_after", "created_before"}
METADATA = re.compile(r"metadata\[.{1,64}\]", re.DOTALL)
EVENTS = {
    "responses": {
        200: {
            "description": "Server-sent events until the task has ended.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The task has ended, and nothing comes after this id."},
    }
}


@router.post("/chat/completions", response={202: AcceptedTask}, operation_id="create_chat_task", by_alias=True)
async def create_chat_task(request: HttpRequest, payload: ChatTask) -> HttpResponse:
    """Answer a conversation in the background. The reply says where to look for the result."""
    return await _accept(request, kinds.public("chat_completion"), payload, payload)


@router.post("/embeddings", response={202: AcceptedTask}, operation_id="create_embeddings_task")
async def create_embeddings_task(request: HttpRequest, payload: EmbeddingsTask) -> HttpResponse:
    """Turn texts into vectors in the background."""
    return await _accept(request, kinds.public("embeddings"), payload, payload)


@router.post("", response={202: AcceptedTask}, operation_id="create_task")
async def create_task(request: HttpRequest, payload: NewTaskBody) -> HttpResponse:
    """Do work of any public kind in the background."""
    kind = kinds.public(payload.kind)
    return await _accept(request, kind, accept.arguments(kind, payload.args), payload)


@router.get("", response=TaskList, operation_id="list_tasks")
async def list_tasks(
    request: HttpRequest,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str = "",
    status: str = "",
    kind: str = "",
    priority: str = "",
    created_after: Annotated[float | None, Query(ge=0, le=4e9)] = None,
    created_before: Annotated[float | None, Query(ge=0, le=4e9)] = None,
) -> HttpResponse:
    """The project's tasks, newest first. `metadata[key]=value` narrows to tasks with that value."""
    _refuse_unknown(request.GET)
    _one_of("status", status, {states.shown(state) for state in states.ALL})
    _one_of("priority", priority, set(states.PRIORITIES))
    _one_of("kind", kind, set(kinds.names()))
    metadata = tuple((name[9:-1], str(value)) for name, value in request.GET.items() if name.startswith("metadata["))
    filters = queries.Filters(status, kind, priority, created_after, created_before, metadata)
    cursor = queries.task_id(after, param="after") if after else None
    return _json(await in_db(queries.page, caller_of(request).project_id, filters, after=cursor, limit=limit))


@router.get("/{task_id}", response=TaskStatus, operation_id="retrieve_task")
async def retrieve_task(
    request: HttpRequest, task_id: str, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0.0
) -> HttpResponse:
    """One task. With `wait` the reply comes when the task has ended, at the latest after so many seconds (60)."""
    found, project_id = queries.task_id(task_id), caller_of(request).project_id
    status = await in_db(queries.one, project_id, found)
    if wait and status["finished_at"] is None and await waiters().wait_for_end(found, wait):
        status = await in_db(queries.one, project_id, found)
    return _json(status)


@router.get("/{task_id}/attempts", response=AttemptList, operation_id="list_task_attempts")
async def list_task_attempts(request: HttpRequest, task_id: str) -> HttpResponse:
    """What was tried, and how it ended."""
    return _json(await in_db(queries.attempts, caller_of(request).project_id, queries.task_id(task_id)))


@router.get("/{task_id}/events", operation_id="stream_task_events", openapi_extra=EVENTS)
async def stream_task_events(
    request: HttpRequest, task_id: str, starting_after: Annotated[str, Query(max_length=32)] = ""
) -> HttpResponseBase:
    """Follow a task by server-sent events: states, progress, and the text of a chat task with `stream: true`.

    Each `id:` is `{attempt}.{n}`; send the last one as `Last-Event-ID`, or in `starting_after`, to go on after it
    without a gap. The stream ends with the task; a connection after that end gets 204, so that browsers stop.
    """
    found, project_id = queries.task_id(task_id), caller_of(request).project_id
    after = starting_after or request.META.get("HTTP_LAST_EVENT_ID", "")
    if await events.is_over(project_id, found, starting_after=after):
        return HttpResponse(status=204)
    buffer = Buffer(events.follow(project_id, found, starting_after=after))
    return ByteStreamResponse(
        sse.frames(buffer),
        release=buffer.close,
        last_words=stopping,
        content_type="text/event-stream; charset=utf-8",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.delete("/{task_id}", response={200: TaskStatus, 202: TaskStatus}, operation_id="cancel_task")
async def cancel_task(request: HttpRequest, task_id: str) -> HttpResponse:
    """Call a task off. 200: it is cancelled. 202: it runs, and ends within a second. 409: it has ended already."""
    return await _cancel(request, task_id)


@router.post("/{task_id}/cancel", response={200: TaskStatus, 202: TaskStatus}, operation_id="cancel_task_by_post")
async def cancel_task_by_post(request: HttpRequest, task_id: str) -> HttpResponse:
    """The same as DELETE."""
    return await _cancel(request, task_id)


async def _cancel(request: HttpRequest, task_id: str) -> HttpResponse:
    found, project_id = queries.task_id(task_id), caller_of(request).project_id
    cancelled = await in_db(cancel, found, project_id=project_id)
    status = await in_db(queries.one, project_id, found)
    return _json(status, status=200 if cancelled.state == states.CANCELLED else 202)


async def _accept(request: HttpRequest, kind: kinds.Kind, args: BaseModel, wishes: Wishes) -> HttpResponse:
    caller = caller_of(request)
    claim = idempotency.claim(
        caller.project_id, request.path[:64], request.META.get("HTTP_IDEMPOTENCY_KEY"), request.body
    )
    accepted = await accept.accept(caller, kind, args, wishes.wishes(), end_user=end_user_of(request), claim=claim)
    shown = queries.accepted(accepted.task_id, accepted.kind, accepted.priority, accepted.created_at)
    response = _json(shown, status=202)
    response["Location"] = shown["links"]["self"]
    response["Retry-After"] = "1"
    if accepted.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def _refuse_unknown(query: QueryDict) -> None:
    # A misspelt filter that is ignored would show everything.
    if sum(name.startswith("metadata[") for name in query) > MOST_METADATA:
        raise errors.InvalidRequest(f"A task has {MOST_METADATA} pairs of metadata.", param="metadata")
    for name, value in query.items():
        if name not in FILTERS and not METADATA.fullmatch(name):
            raise errors.InvalidRequest(f"There is no filter `{name[:64]}`.", param=name[:64])
        if "\0" in name or "\0" in str(value):
            raise errors.InvalidRequest("A filter holds no NUL.", param=name[:64].replace("\0", ""))


def _one_of(name: str, value: str, known: set[str]) -> None:
    if value and value not in known:
        raise errors.InvalidRequest(f"It is one of {', '.join(sorted(known))}.", param=name)


def _json(value: Json, status: int = 200) -> HttpResponse:
    return HttpResponse(json_codec.dumps(value), status=status, content_type="application/json")
