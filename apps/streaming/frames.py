"""The messages of the server, as the text of their frames."""

from apps.completions import usage
from apps.completions.models import NUSD
from apps.core import error_payload, errors, json_codec
from apps.core.request_context import RequestContext
from apps.providers.contract import Json, Usage

PONG = '{"type":"pong"}'


def ready(request_id: str, max_streams: int) -> str:
    """The key is known; the socket may be used."""
    return _text({"type": "connection.ready", "request_id": request_id, "max_streams": max_streams})


def chunk(stream_id: str, number: int, body: Json) -> str:
    """One of OpenAI's chunks. number: from 1."""
    return _text({"type": "completion.chunk", "stream_id": stream_id, "sequence_number": number, "chunk": body})


def completed(stream_id: str, status: str, context: RequestContext) -> str:
    """The end of a completion, with what was booked for it. status: completed, or cancelled by the client."""
    used, cost = Usage(), 0
    if context.booked is not None:
        used = Usage(context.booked.input_tokens, context.booked.output_tokens)
        cost = context.booked.cost_nusd
    return _text(
        {
            "type": "completion.completed",
            "stream_id": stream_id,
            "status": status,
            "usage": usage.render(used),
            "cost_usd": cost / NUSD,
            "latency_ms": round(context.elapsed_ms()),
            "request_id": context.request_id,
        }
    )


def task_event(stream_id: str, number: str, event: Json) -> str:
    """One event of a task. number: `{attempt}.{n}`."""
    return _text({"type": "task.event", "stream_id": stream_id, "sequence_number": number, "event": event})


def error(found: errors.RedriveError, *, request_id: str, stream_id: str | None = None) -> str:
    """The one error object. What HTTP says in Retry-After is `retry_after` in its details (seconds)."""
    inner = error_payload.inner(found, request_id)
    if found.retry_after is not None:
        inner["details"] = {"retry_after": found.retry_after, **(inner["details"] or {})}
    return _text({"type": "error", "stream_id": stream_id, "error": inner})


def _text(message: Json) -> str:
    return json_codec.dumps(message).decode()
