"""The adapter's own limits, over real HTTP."""

from typing import Any

import pytest
from aiohttp import web

from apps.providers.adapters.openai_http import MAX_ANSWER, OpenAIHTTP
from apps.providers.contract import Json, UpstreamConfig
from apps.providers.errors import UpstreamBroken, UpstreamRefused, UpstreamUnreachable
from tests.providers.conftest import MakeUpstream
from tests.upstream import Upstream, raw, status


async def send(upstream: UpstreamConfig, **body: Any) -> Json:
    """One whole chat request."""
    sent = {"model": upstream.model, **body}
    return (await OpenAIHTTP().send(upstream, "chat/completions", sent, within=20)).body


async def test_an_answer_beyond_every_measure_is_a_broken_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()

    async def flood(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(MAX_ANSWER // 2**22 + 2):
            await response.write(b" " * 2**22)
        await response.write(b'{"choices": []}')
        return response

    upstream.script(only.model, flood)
    with pytest.raises(UpstreamBroken):
        await send(only)


async def test_a_redirect_is_not_followed(upstream: Upstream, at: MakeUpstream) -> None:
    only, elsewhere = at(), at()
    upstream.script(only.model, status(307, headers={"Location": f"{upstream.url}/chat/completions"}))
    with pytest.raises(UpstreamBroken):
        await send(only)
    assert len(upstream.requests(only.model)) == 1
    assert upstream.requests(elsewhere.model) == []


async def test_lone_surrogates_go_to_the_upstream_as_escapes(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    await send(only, messages=[{"role": "user", "content": "\ud83d"}])
    assert upstream.requests(only.model)[0].body["messages"][0]["content"] == "\ud83d"


async def test_lone_surrogates_of_an_upstream_are_read(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, raw(b'{"choices": [], "x": "\\ud83d"}'))
    assert (await send(only))["x"] == "\ud83d"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"-1e999"])
async def test_a_number_that_json_cannot_hold_is_a_broken_upstream(
    upstream: Upstream, at: MakeUpstream, number: bytes
) -> None:
    only = at()
    upstream.script(only.model, raw(b'{"choices": [], "x": "\\ud83d", "y": ' + number + b"}"))
    with pytest.raises(UpstreamBroken):
        await send(only)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"error": 5}', b"[" * 5000])
async def test_a_refusal_counts_whatever_its_body_is(upstream: Upstream, at: MakeUpstream, body: bytes) -> None:
    only = at()
    upstream.script(only.model, raw(body, code=400))
    with pytest.raises(UpstreamRefused) as raised:
        await send(only)
    assert raised.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "http://[::/v1"])
async def test_an_address_where_nobody_is_cannot_be_reached(at: MakeUpstream, url: str) -> None:
    with pytest.raises(UpstreamUnreachable):
        await send(at(base_url=url))
