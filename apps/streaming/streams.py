"""The streams of one socket: at most so many at once, each under its own id, each with a context and a log line."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from apps.access.authentication import Caller
from apps.core import error_payload, errors, ids, metrics, request_context
from apps.core.request_context import RequestContext
from apps.streaming import frames
from apps.streaming.closing import DUPLICATE_STREAM, TOO_MANY, CloseSocket
from apps.streaming.work import Put, Work

log = structlog.get_logger("redrive.access")

CHAT, TASK_EVENTS, TASK_CANCEL = "chat/completions", "tasks/events", "tasks/cancel"


@dataclass(eq=False, slots=True)
class Stream:
    """One that runs. id: None for work that has no frames of its own."""

    id: str | None
    operation: str
    work: Work
    cancelled: bool = False  # by the client
    ending: bool = False  # its last frame is made
    task: "asyncio.Task[None] | None" = None


class Streams:
    """Starts, cancels and ends them.

    know_caller: the caller as it is now; raises CloseSocket once its key is refused. put: queues a frame.
    leave: called where the socket must be closed.
    """

    def __init__(
        self,
        *,
        most: int,
        know_caller: Callable[[], Awaitable[Caller]],
        put: Put,
        leave: Callable[[CloseSocket], None],
        address: str,
    ) -> None:
        self.started = 0
        self._most = most
        self._know_caller = know_caller
        self._put = put
        self._leave = leave
        self._address = address
        self._running: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, stream_id: str | None, operation: str, work: Work) -> None:
        """Run work under an id that is free. Raises CloseSocket."""
        if stream_id is not None and self._find(stream_id) is not None:
            message = f"The stream_id `{stream_id}` is in use on this socket."
            raise CloseSocket(DUPLICATE_STREAM, errors.Conflict(message, param="stream_id"))
        if len(self._running) >= self._most:
            details = {"scope": "websocket", "limit": self._most, "unit": "streams at a time"}
            message = f"A socket may have {self._most} streams at a time."
            raise CloseSocket(TOO_MANY, errors.RateLimitExceeded(message, details=details))
        stream = Stream(stream_id, operation, work)
        self._running.add(stream)
        self.started += 1
        stream.task = asyncio.create_task(self._run(stream))
        stream.task.add_done_callback(lambda _: self._running.discard(stream))  # also if it was cancelled unborn

    def cancel(self, stream_id: str) -> None:
        """End a stream as its client wishes; one that has ended meanwhile is left alone."""
        stream = self._find(stream_id)
        if stream is not None and stream.task is not None and not (stream.cancelled or stream.ending):
            stream.cancelled = True
            stream.task.cancel()
            if stream.operation != CHAT:
                stream.id = None  # no last frame would say when it is free

    def abort(self) -> None:
        """Let go of all upstreams; nobody is told."""
        for stream in self._running:
            if stream.task is not None:
                stream.cancelled = False
                stream.task.cancel()

    async def end(self) -> None:
        """Abort, and wait until all is booked."""
        self.abort()
        if running := {stream.task for stream in self._running if stream.task is not None}:
            await asyncio.wait(running)

    def _find(self, stream_id: str) -> Stream | None:
        return next((stream for stream in self._running if stream.id == stream_id), None)

    async def _run(self, stream: Stream) -> None:
        context = RequestContext(ids.request_id(), self._address)
        request_context.enter(context)
        outcome = "lost"
        try:
            outcome, last = await self._work(stream, context)
            stream.ending = True
            if last is not None:
                # From here to the end nothing else may run: a client that has this frame may use the id again.
                await self._put(last)
        except CloseSocket as farewell:
            outcome, context.status = "refused", farewell.error.status
            self._leave(farewell)
        finally:
            self._running.discard(stream)
            _note(stream, context, outcome)

    async def _work(self, stream: Stream, context: RequestContext) -> tuple[str, str | None]:
        """Outcome and last frame."""
        try:
            context.caller = caller = await self._know_caller()
            context.log_fields["key"] = caller.key_prefix
            return "completed", await stream.work(caller, self._put)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not stream.cancelled or task is None:
                raise
            task.uncancel()
            if stream.id is None:
                return "cancelled", None
            return "cancelled", frames.completed(stream.id, "cancelled", context)
        except CloseSocket:
            raise
        except Exception as error:
            known = error_payload.translate(error)
            if known is None:
                log.error("stream_failed", exc_info=error)
                known = errors.InternalError()
            if context.status == 499:
                context.status = known.status
            context.log_fields["code"] = known.code
            return "failed", frames.error(known, request_id=context.request_id, stream_id=stream.id)


def _note(stream: Stream, context: RequestContext, outcome: str) -> None:
    """One log line and the metrics of a stream, without what it carried."""
    metrics.SOCKET_STREAMS.labels(stream.operation, outcome).inc()
    if stream.operation == CHAT:
        replies, seconds = metrics.of_reply(CHAT, context.status)
        replies.inc()
        seconds.observe(context.elapsed_ms() / 1000)
    log.info("stream", operation=stream.operation, outcome=outcome, status=context.status)
