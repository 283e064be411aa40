"""Embeddings: plain values in, OpenAI's object out; the gateway converts between floats and base64."""

import base64
import sys
from array import array
from typing import Any

from apps.access.authentication import Caller
from apps.completions import spending, usage
from apps.completions.models import NUSD, LedgerEntry
from apps.completions.schemas.embeddings import EmbeddingsRequest
from apps.completions.spending import LIVE, Terms
from apps.core import errors, request_context
from apps.providers.contract import Json, Operation, Usage
from apps.providers.errors import UpstreamBroken

OPERATION: Operation = "embeddings"


async def create(caller: Caller, request: EmbeddingsRequest, *, end_user: str = "", terms: Terms = LIVE) -> Json:
    """One vector per input, in order, with `usage` and `cost_usd`. Raises RedriveError."""
    route = await spending.find_route(caller, request.model)
    request_context.current().log_fields["model"] = route.public_name
    spending.refuse_unknown_fields(request, route)
    input_tokens = request.tokens()
    many = isinstance(request.input, list) and not isinstance(request.input[0], int)
    expected = len(request.input) if many else 1
    spent = await spending.begin(
        caller,
        route,
        operation=OPERATION,
        input_tokens=input_tokens,
        output_tokens=0,
        end_user=end_user or request.user or "",
        terms=terms,
    )
    try:
        body = request.model_dump(mode="json", exclude_unset=True)
        call = terms.call(route, OPERATION, lambda upstream: {**body, "model": upstream.model}, spent.failed)
        attempt, answer = await call.answer()
        try:
            vectors = _vectors(answer.body, expected, request.encoding_format or "float")
        except errors.RedriveError as error:
            attempt.error_code = error.code
            spent.book(attempt, Usage(input_tokens, estimated=True), LedgerEntry.Outcome.FAILED)
            raise
        used = usage.read(answer.body.get("usage")) or Usage(input_tokens, estimated=True)
        used.output_tokens = 0
        cost = spent.book(attempt, used)
        embeddings: Json = {
            "object": "list",
            "data": vectors,
            "model": route.public_name,
            "usage": {"prompt_tokens": used.input_tokens, "total_tokens": used.input_tokens},
            "cost_usd": cost / NUSD,
        }
        spent.purpose.store(body, {"object": "list", "vectors": len(vectors), "usage": embeddings["usage"]})
        return embeddings
    finally:
        spent.end()


def _vectors(body: Json, expected: int, encoding: str) -> list[Json]:
    data = body.get("data")
    if not isinstance(data, list) or len(data) != expected or not all(isinstance(item, dict) for item in data):
        raise UpstreamBroken("The model's provider answered with another number of vectors than inputs.")
    if all(isinstance(item.get("index"), int) for item in data):
        data.sort(key=lambda item: item["index"])
    return [
        {"object": "embedding", "index": index, "embedding": _encode(item.get("embedding"), encoding)}
        for index, item in enumerate(data)
    ]


def _encode(vector: Any, encoding: str) -> Any:
    """The vector as a list of floats, or as base64 of little-endian float32."""
    try:
        floats = array("f")
        if isinstance(vector, str):
            floats.frombytes(base64.b64decode(vector, validate=True))
            return vector if encoding == "base64" else _swapped(floats).tolist()
        if not isinstance(vector, list):
            raise TypeError
        floats.extend(vector)  # refuses what is no number
        return base64.b64encode(_little_endian(floats)).decode() if encoding == "base64" else vector
    except (TypeError, ValueError, OverflowError):
        raise UpstreamBroken("The model's provider answered with something that is not a vector.") from None


def _little_endian(floats: "array[float]") -> bytes:
    return _swapped(floats).tobytes()


def _swapped(floats: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
