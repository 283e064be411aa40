"""Chat completions, whole and streamed: plain values in, OpenAI's objects out."""

import contextlib
import time
from collections.abc import AsyncGenerator

from apps.access.authentication import Caller
from apps.completions import required, spending, usage
from apps.completions.models import NUSD, LedgerEntry
from apps.completions.schemas.chat import ChatRequest
from apps.completions.spending import LIVE, Spending, Terms
from apps.core import errors, ids, request_context
from apps.providers import pricing
from apps.providers.bounded import Buffer
from apps.providers.contract import Json, Operation, RouteConfig, Usage
from apps.providers.errors import UpstreamBroken
from apps.providers.open_stream import OpenStream

OPERATION: Operation = "chat/completions"
UNSET_OUTPUT = 1024  # tokens reserved where neither the client nor the route sets a maximum


async def create(caller: Caller, request: ChatRequest, *, end_user: str = "", terms: Terms = LIVE) -> Json:
    """A whole completion with `usage` and `cost_usd`. Raises RedriveError."""
    route, spent = await _begin(caller, request, end_user, terms)
    try:
        body = upstream_body(request, route)
        call = terms.call(route, OPERATION, lambda upstream: {**body, "model": upstream.model}, spent.failed)
        attempt, answer = await call.answer()
        completion = answer.body
        if not _well_formed(completion):
            attempt.error_code = UpstreamBroken.code
            spent.book(attempt, Usage(spent.input_tokens, estimated=True), LedgerEntry.Outcome.FAILED)
            raise UpstreamBroken("The model's provider answered without choices.")
        used = usage.read(completion.get("usage")) or usage.estimate(spent.input_tokens, _characters(completion))
        cost = spent.book(attempt, used)
        required.complete_whole(completion, route.public_name, used)
        completion["cost_usd"] = cost / NUSD
        spent.purpose.store(body, completion)
        return completion
    finally:
        spent.end()


async def open_stream(caller: Caller, request: ChatRequest, *, end_user: str = "", terms: Terms = LIVE) -> "ChatStream":
    """A streamed completion whose first content has come. Raises RedriveError; `close` it in any case."""
    route, spent = await _begin(caller, request, end_user, terms)
    try:
        body = upstream_body(request, route)
        call = terms.call(route, OPERATION, lambda upstream: {**body, "model": upstream.model}, spent.failed)
        opened = await call.stream()
    except BaseException:
        spent.end()
        raise
    wants_usage = bool(request.stream_options and request.stream_options.include_usage)
    return ChatStream(opened, spent, body, wants_usage=wants_usage)


class ChatStream:
    """OpenAI's chunks, one id, time and model in all. What was produced is booked, however it ends."""

    def __init__(self, opened: OpenStream, spent: Spending, body: Json, *, wants_usage: bool) -> None:
        self._opened = opened
        self._spent = spent
        self._body = body
        self._wants_usage = wants_usage
        self._head: Json = {
            "id": ids.completion_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": spent.purpose.route.public_name,
        }
        self._characters = 0
        self._usage: Usage | None = None
        self._texts: list[str] = []
        self._booked = False
        self._buffer = Buffer(self._chunks(), until=opened.until)

    async def next(self, wait: float | None = None) -> Json | None:
        """The next chunk, None after the last. Raises RedriveError, and TimeoutError after `wait` s of silence."""
        return await self._buffer.next(wait)

    async def close(self) -> None:
        """Abort what still runs upstream; what it had produced is booked."""
        await self._buffer.close()
        if not self._booked:  # closed before the buffer's reader had its first turn
            await self._end(LedgerEntry.Outcome.CANCELLED)

    async def _chunks(self) -> AsyncGenerator[Json, None]:
        outcome = LedgerEntry.Outcome.CANCELLED
        try:
            async with contextlib.aclosing(self._opened.chunks()) as chunks:
                async for chunk in chunks:
                    self._usage = usage.read(chunk.pop("usage", None)) or self._usage
                    if chunk.get("choices"):
                        self._complete(chunk)
                        yield chunk
            outcome = LedgerEntry.Outcome.SUCCEEDED
            if self._wants_usage:
                used = self._used()
                cost = self._price(used)
                yield {**self._head, "choices": [], "usage": usage.render(used), "cost_usd": cost / NUSD}
        except Exception:
            outcome = LedgerEntry.Outcome.INTERRUPTED
            raise
        finally:
            await self._end(outcome)

    async def _end(self, outcome: str) -> None:
        # The booking comes before any await: a second cancellation must not lose it.
        self._booked = True
        try:
            self._opened.attempt.latency = time.monotonic() - self._opened.attempt.started
            self._spent.book(self._opened.attempt, self._used(), outcome)
            self._spent.purpose.store(self._body, {**self._head, "text": "".join(self._texts), "outcome": outcome})
        finally:
            self._spent.end()
            await self._opened.close()

    def _used(self) -> Usage:
        return self._usage or usage.estimate(self._spent.input_tokens, self._characters)

    def _price(self, used: Usage) -> int:
        return pricing.price(self._spent.purpose.route, self._opened.attempt.upstream.model).cost(used)

    def _complete(self, chunk: Json) -> None:
        chunk.update(self._head)
        if self._wants_usage:
            chunk["usage"] = None
        for position, choice in enumerate(chunk["choices"]):
            required.complete_piece(choice, position)
            text = required.text_of(choice["delta"])
            self._characters += len(text)
            if self._spent.purpose.caller.store_bodies:
                self._texts.append(text)


async def _begin(caller: Caller, request: ChatRequest, end_user: str, terms: Terms) -> tuple[RouteConfig, Spending]:
    route = await spending.find_route(caller, request.model)
    request_context.current().log_fields["model"] = route.public_name
    input_tokens, output_tokens = check(request, route)
    spent = await spending.begin(
        caller,
        route,
        operation=OPERATION,
        input_tokens=input_tokens,
        output_tokens=output_tokens * (request.n or 1),
        end_user=end_user or request.user or "",
        stream=bool(request.stream),
        terms=terms,
    )
    return route, spent


def check(request: ChatRequest, route: RouteConfig) -> tuple[int, int]:
    """Raise where the route cannot take the request; else its estimated input and the most output, in tokens."""
    spending.refuse_unknown_fields(request, route)
    if request.store:
        raise errors.InvalidRequest("`store` is not available yet: leave it out or send false.", param="store")
    if request.stream_options is not None and not request.stream:
        raise errors.InvalidRequest("`stream_options` needs `stream: true`.", param="stream_options")
    # Both are forwarded, and servers differ in which of them they know: the larger one counts.
    asked = max(request.max_completion_tokens or 0, request.max_tokens or 0)
    if asked > route.max_output_tokens:
        field = "max_tokens" if asked == request.max_tokens else "max_completion_tokens"
        raise errors.InvalidRequest(f"`{field}` may be {route.max_output_tokens} at most for this model.", param=field)
    default = route.default_params.get("max_tokens")
    output_tokens = asked or (default if isinstance(default, int) else UNSET_OUTPUT)
    input_tokens = max(1, request.characters() // 4)
    if input_tokens + output_tokens > route.context_window:
        raise errors.ContextLengthExceeded(
            f"This model's context window is {route.context_window} tokens; the messages take about {input_tokens} "
            f"and the answer up to {output_tokens}.",
            param="messages",
            details={"tokens_used": input_tokens + output_tokens, "max_tokens": route.context_window},
        )
    return input_tokens, output_tokens


def upstream_body(request: ChatRequest, route: RouteConfig) -> Json:
    """The JSON for an upstream, but for `model`: what the client sent, and the route's defaults for what it did not."""
    body = request.model_dump(mode="json", exclude_unset=True)
    body.pop("store", None)
    # OpenAI's null is "not set", to which the route's defaults apply.
    body = {name: value for name, value in body.items() if value is not None}
    for name, value in route.default_params.items():
        if name == "max_tokens" and "max_completion_tokens" in body:
            continue
        body.setdefault(name, value)
    if request.stream:
        # Usage is always asked for: every stream ends with its totals in the ledger.
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def _well_formed(completion: Json) -> bool:
    choices = completion.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return False
    return all(isinstance(choice.get("message"), dict) for choice in choices)


def _characters(completion: Json) -> int:
    return sum(len(required.text_of(choice["message"])) for choice in completion["choices"])
