"""Speaks to any OpenAI-compatible server over HTTP; every failure becomes an UpstreamError."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Collection
from typing import Any

import aiohttp

from apps.core import json_codec, request_context
from apps.core.errors import RedriveError
from apps.providers import errors, http
from apps.providers.adapters.event_stream import EventParser
from apps.providers.adapters.refusals import refusal
from apps.providers.contract import Answer, Json, Operation, ProviderConfig, UpstreamConfig

MAX_ANSWER = 64 * 1024 * 1024  # bytes of a whole answer; more is a broken upstream
DONE = b"[DONE]"
PUBLIC_HEADERS = frozenset({"Content-Type", "Accept-Encoding"})  # hold no secret


class OpenAIHTTP:
    """POST {base_url}/{operation} with JSON; streams are server-sent events that end with `data: [DONE]`."""

    async def send(self, upstream: UpstreamConfig, operation: Operation, body: Json, *, within: float) -> Answer:
        """See contract.Adapter."""
        try:
            async with asyncio.timeout(within):
                response = await _post(upstream.provider, operation, body)
                async with response:
                    raw = await _read_whole(response)
        except TimeoutError:
            raise errors.UpstreamTimeout() from None
        except (aiohttp.ClientError, OSError) as error:
            raise errors.UpstreamUnreachable("The model's provider broke the connection.") from error
        answer = _load(raw)
        if not isinstance(answer, dict):
            raise _broken("The model's provider answered with something other than JSON.", response.status)
        if answer.get("error"):
            raise _error_inside(answer, response, _secrets(upstream.provider))
        return Answer(answer, response.status, response.headers.get("x-request-id", ""))

    async def open(
        self, upstream: UpstreamConfig, operation: Operation, body: Json, *, first_byte: float, within: float
    ) -> "SSEStream":
        """See contract.Adapter."""
        try:
            async with asyncio.timeout(first_byte):
                response = await _post(upstream.provider, operation, body)
        except TimeoutError:
            raise errors.UpstreamTimeout() from None
        content_type = response.headers.get("Content-Type", "")
        if "text/event-stream" not in content_type:
            try:
                answer = _load(await _read_limited(response))
            finally:
                response.close()
            if isinstance(answer, dict) and answer.get("error"):
                raise _error_inside(answer, response, _secrets(upstream.provider))
            raise _broken("The model's provider answered a stream with something else.", response.status)
        choices = int(body.get("n") or 1)
        return SSEStream(
            response,
            idle=upstream.provider.idle_timeout,
            within=within,
            choices=choices,
            secrets=_secrets(upstream.provider),
        )


class SSEStream:
    """An open server-sent event stream. Closes itself when a read waits for `idle` seconds, or `within` is over."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        idle: float,
        within: float,
        choices: int,
        secrets: Collection[str] = (),
    ) -> None:
        self._response = response
        self._idle = idle
        self._secrets = secrets
        self._unfinished = set(range(choices))
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + within
        self._reading_since: float | None = None
        self._too_late = ""
        self._timer = self._loop.call_later(min(idle, within), self._look_at_the_clock)
        self.status = response.status
        self.upstream_request_id = response.headers.get("x-request-id", "")

    async def chunks(self) -> AsyncGenerator[Json, None]:
        """The chunk objects until `[DONE]`, or the end after a finish_reason in every choice."""
        events = EventParser()
        while True:
            block = await self._read()
            for data in events.feed(block) if block else events.end():
                if data == DONE:
                    return
                yield self._chunk(data)
            if not block:
                break
        if self._unfinished:
            raise errors.StreamInterrupted()

    async def close(self) -> None:
        """Abort the connection unless the stream was read to its end."""
        self._timer.cancel()
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def _chunk(self, data: bytes) -> Json:
        chunk = _well_formed(_load(data))
        if chunk.get("error"):
            raise _error_inside(chunk, self._response, self._secrets)
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason"):
                self._unfinished.discard(choice.get("index") or 0)
        return chunk

    async def _read(self) -> bytes:
        self._reading_since = self._loop.time()
        try:
            block = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self._too_late:
                raise errors.UpstreamTimeout(self._too_late) from None
            raise errors.StreamInterrupted() from error
        finally:
            self._reading_since = None
        if self._too_late:
            raise errors.UpstreamTimeout(self._too_late)
        return block

    def _look_at_the_clock(self) -> None:
        # One timer for the stream instead of one for each read. A slow client, for whom nothing is read, is not idle.
        now = self._loop.time()
        silent_at = self._idle + (now if self._reading_since is None else self._reading_since)
        due = min(silent_at, self._deadline)
        if due > now:
            self._timer = self._loop.call_at(due, self._look_at_the_clock)
            return
        late = now >= self._deadline
        self._too_late = "The answer took too long." if late else "The model's provider stopped sending."
        self._response.close()


@functools.cache
def _timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


async def _post(provider: ProviderConfig, operation: str, body: Json) -> aiohttp.ClientResponse:
    try:
        response = await http.session().post(
            f"{provider.base_url}/{operation}",
            data=json_codec.dumps(body),
            headers={**provider.headers, "X-Request-ID": request_context.current().request_id},
            timeout=_timeout(provider.connect_timeout),
            allow_redirects=False,
        )
    except aiohttp.ConnectionTimeoutError as error:
        raise errors.UpstreamUnreachable("The model's provider did not accept a connection in time.") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise errors.UpstreamUnreachable() from error
    if response.status != 200:
        try:
            answer = _load(await _read_limited(response))
        finally:
            response.close()
        raise refusal(response.status, answer, response.headers, secrets=_secrets(provider))
    return response


def _secrets(provider: ProviderConfig) -> set[str]:
    """What an upstream could send back of the request's headers: their values, `Bearer ...` also without its scheme."""
    values = {value for name, value in provider.headers.items() if name not in PUBLIC_HEADERS}
    return {part for value in values for part in (value, value.rpartition(" ")[2]) if len(part) >= 4}


def _error_inside(answer: Json, response: aiohttp.ClientResponse, secrets: Collection[str]) -> RedriveError:
    """The error of an upstream that says 200 and means something else."""
    error = refusal(502, answer, response.headers, secrets=secrets)
    error.upstream_status = response.status
    return error


def _broken(message: str, status: int) -> errors.UpstreamBroken:
    error = errors.UpstreamBroken(message)
    error.upstream_status = status
    return error


async def _read_whole(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    while block := await response.content.readany():
        parts.append(block)
        size += len(block)
        if size > MAX_ANSWER:
            raise _broken("The model's provider sent an endless answer.", response.status)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    """The start of an error's body; whatever goes wrong here, the status is what counts."""
    try:
        async with asyncio.timeout(5):
            return await response.content.read(64 * 1024)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return b""


def _load(raw: bytes) -> Any:
    """The JSON value, None where it is no JSON."""
    try:
        return json_codec.loads(raw)
    except ValueError:
        return None


def _well_formed(chunk: Any) -> Json:
    """The chunk with `choices` as a list of objects that have a `delta`. Raises UpstreamBroken."""
    if not isinstance(chunk, dict):
        raise errors.UpstreamBroken("The model's provider sent a piece that is not JSON.")
    choices = chunk.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise errors.UpstreamBroken("The model's provider sent a piece without choices.")
    for choice in choices:
        if not isinstance(choice.get("delta"), dict):
            choice["delta"] = {}
        if not isinstance(choice.get("index"), int):
            choice["index"] = None  # its place in the list will do
    return chunk
