"""Tests a provider for a person: one real request, its time and its outcome in words, without retries or limits."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from django.db import transaction
from redis.exceptions import RedisError

from apps.access import audit
from apps.core import json_codec
from apps.core.crypto import UndecipherableError
from apps.providers import breaker_board, routing
from apps.providers.adapters.refusals import safe
from apps.providers.contract import ProviderConfig
from apps.providers.models import Provider

TIMEOUT = 20.0  # seconds for the whole test
MAX_ANSWER = 4 * 1024 * 1024  # bytes read of an answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test found. words: for people. lifted: models whose breaker was reset because the test went well."""

    succeeded: bool
    words: str
    milliseconds: int
    request: str
    status: int | None = None
    lifted: tuple[str, ...] = ()


def run(provider: Provider, *, model: str = "", actor: Any = None, reason: str = "") -> Outcome:
    """Ask for the list of models, or with `model` (an upstream model) for a chat answer of one token.

    A test that succeeds lifts the credential blocks of the provider; a chat test closes its model's breaker as well.
    Audited. Must not run in an event loop.
    """
    try:
        outcome = asyncio.run(_ask(routing.provider_config(provider), model, breaker_board.models_of(provider)))
    except UndecipherableError:
        outcome = Outcome(
            False, "No key of REDRIVE_ENCRYPTION_KEYS opens the stored API key. Enter it again.", 0, "none"
        )
    after = {"request": outcome.request, "outcome": outcome.words}
    with transaction.atomic():
        audit.record("test", provider, actor=actor, reason=reason, after=after)
    if not outcome.succeeded:
        return outcome
    return _with_lifted(outcome, provider, model, actor)


def _with_lifted(outcome: Outcome, provider: Provider, model: str, actor: Any) -> Outcome:
    closed = [
        one.model
        for one in breaker_board.load(provider=provider)
        if one.state == "blocked" or (one.model == model and not one.is_closed)
    ]
    if not closed:
        return outcome
    try:
        breaker_board.reset(provider, closed, actor=actor, reason="A test of the provider succeeded.")
    except RedisError:
        return outcome
    return Outcome(True, outcome.words, outcome.milliseconds, outcome.request, outcome.status, tuple(closed))


async def _ask(provider: ProviderConfig, model: str, models: list[str]) -> Outcome:
    method, url = ("POST", f"{provider.base_url}/chat/completions") if model else ("GET", f"{provider.base_url}/models")
    request = f"{method} {urlsplit(url).path}"
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} if model else None
    started = time.monotonic()
    status: int | None = None
    timeout = aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=provider.connect_timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(
                method,
                url,
                headers=provider.headers,
                data=json_codec.dumps(body) if body else None,
                allow_redirects=False,
            ) as response,
        ):
            status = response.status
            answer = _load(await response.content.read(MAX_ANSWER))
        succeeded, words = _judge(status, answer, model, models)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        succeeded, words = False, _failure(error, provider)
    return Outcome(succeeded, words, round((time.monotonic() - started) * 1000), request, status)


def _judge(status: int, answer: Any, model: str, models: list[str]) -> tuple[bool, str]:
    if status in {401, 402, 403}:
        return False, f"It refused our credentials ({status}). {_message(answer)}".strip()
    if status in {404, 405} and not model:
        return False, f"It has no list of models ({status}). Check the base URL, or test with a chat request."
    if not 200 <= status < 300:
        return False, f"It answered {status}. {_message(answer)}".strip()
    if not isinstance(answer, dict) or answer.get("error"):
        return False, f"It answered {status}, but not with what was asked for. {_message(answer)}".strip()
    if model:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return False, "It answered without choices: this is no chat answer."
        return True, f"{model} answered a chat request."
    return _judge_list(answer, models)


def _judge_list(answer: dict[str, Any], models: list[str]) -> tuple[bool, str]:
    rows = answer.get("data")
    if not isinstance(rows, list):
        return False, "It answered without a list of models: is the base URL right?"
    offered = {row.get("id") for row in rows if isinstance(row, dict)}
    missing = [name for name in models if name not in offered]
    words = f"It answered with {len(offered)} model{'s' if len(offered) != 1 else ''}."
    if missing:
        words += f" Routes use models that it does not list: {', '.join(missing[:5])}."
    return True, words


def _failure(error: Exception, provider: ProviderConfig) -> str:
    parts = urlsplit(provider.base_url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{place} did not accept a connection within {provider.connect_timeout:g} s."
    if isinstance(error, TimeoutError):
        return f"No whole answer within {TIMEOUT:g} s."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"The name {parts.hostname} is not known."
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"The certificate of {place} is not valid for it."
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{place} does not speak TLS as expected: http or https?"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"Nothing listens at {place}."
    return f"The request failed: {type(error).__name__}."


def _message(answer: Any) -> str:
    inner = answer.get("error") if isinstance(answer, dict) else None
    said = safe(inner.get("message") if isinstance(inner, dict) else inner)
    return f"It said: {said}" if said else ""


def _load(raw: bytes) -> Any:
    try:
        return json_codec.loads(raw)
    except ValueError:
        return None
