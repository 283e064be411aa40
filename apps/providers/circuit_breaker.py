"""Circuit breakers, one per (provider, upstream model), shared through Redis; in this process while Redis is away.

Three failures in a row within 60 s open it, after 30 s one probe may close it (settings of the provider). A
process trusts what it knows of a closed breaker for a second, so that the hot path rarely asks.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.core import redis
from apps.providers.contract import UpstreamConfig

FRESH = 1.0  # seconds for which a process believes what Redis said
PROBE = 30.0  # seconds a probe may take before another may go
BLOCK = 300.0  # seconds for which refused credentials keep calls away, unless the provider is saved or tested

_SCRIPT = redis.Script((Path(__file__).parent / "lua" / "breaker.lua").read_text())


@dataclass(frozen=True, slots=True)
class State:
    """closed, open, probe (half-open, a call may go) or blocked (credentials); wait: seconds until a call may go."""

    name: str
    wait: float
    failures: int


@dataclass(slots=True)
class _Known:
    state: State
    at: float
    local: "_LocalBreaker" = field(default_factory=lambda: _LocalBreaker())


_known: dict[str, _Known] = {}


async def ask(upstream: UpstreamConfig) -> State:
    """May a call go to this upstream now? A `probe` answer gives this call the one right to try."""
    known = _known.get(_name(upstream))
    now = time.monotonic()
    if known is not None and now - known.at < FRESH:
        state = known.state
        if state.name == "closed" or (state.name in {"open", "blocked"} and now - known.at < state.wait):
            return State(state.name, max(0.0, state.wait - (now - known.at)), state.failures)
    return await _step(upstream, "ask")


async def succeeded(upstream: UpstreamConfig) -> None:
    """A call went well: the failures in a row end, a probe closes the breaker."""
    known = _known.get(_name(upstream))
    if known is None or known.state.name != "closed" or known.state.failures:
        await _step(upstream, "ok")


def note_success(upstream: UpstreamConfig) -> None:
    """`succeeded`, in the background: a client that leaves, or a slow Redis, must not stand between a call and its
    booking."""
    known = _known.get(_name(upstream))
    if known is None or known.state.name != "closed" or known.state.failures:
        task = asyncio.ensure_future(succeeded(upstream))
        _noting.add(task)
        task.add_done_callback(_noting.discard)


_noting: set[asyncio.Task[None]] = set()


async def failed(upstream: UpstreamConfig) -> None:
    """A call failed in a way that speaks against the upstream."""
    await _step(upstream, "fail")


async def block(upstream: UpstreamConfig) -> None:
    """The upstream refused our credentials: keep calls away until the provider is saved or tested, at most 5 min."""
    await _step(upstream, "block")


def look(upstream: UpstreamConfig) -> State:
    """The shared state, for people. Blocking; raises redis.RedisError."""
    return _by_client(upstream, "look")


def look_all(upstreams: Sequence[UpstreamConfig]) -> list[State]:
    """As `look`, in one round trip."""
    with redis.client() as client:
        pipe: Any = client.pipeline(transaction=False)
        for upstream in upstreams:
            pipe.eval(_SCRIPT.source.decode(), 2, *_keys(upstream), *map(str, _args(upstream, "look")))
        return [_read(answer) for answer in pipe.execute()]


def reset(upstream: UpstreamConfig) -> State:
    """Close the breaker and lift the block; in force on every process within a second. Blocking."""
    _known.pop(_name(upstream), None)
    return _by_client(upstream, "reset")


async def _step(upstream: UpstreamConfig, step: str) -> State:
    known = _known.setdefault(_name(upstream), _Known(State("closed", 0, 0), 0.0))
    try:
        answer = await redis.pipe().run(_SCRIPT, _keys(upstream), _args(upstream, step))
        known.state = _read(answer)
        known.local = _LocalBreaker()
    except redis.RedisAway:
        known.state = known.local.step(upstream, step)
    known.at = time.monotonic()
    return known.state


def _by_client(upstream: UpstreamConfig, step: str) -> State:
    with redis.client() as client:
        answer: Any = client.eval(_SCRIPT.source.decode(), 2, *_keys(upstream), *map(str, _args(upstream, step)))
    return _read(answer)


def _read(answer: Any) -> State:
    name, wait_ms, failures = answer
    return State(name.decode(), wait_ms / 1000, failures)


def _name(upstream: UpstreamConfig) -> str:
    return upstream.key


def _keys(upstream: UpstreamConfig) -> list[str]:
    name = f"rd:breaker:{{{_name(upstream)}}}"
    return [name, f"{name}:failures"]


def _args(upstream: UpstreamConfig, step: str) -> list[str | int]:
    provider = upstream.provider
    times = (provider.breaker_window, provider.breaker_reset, PROBE)
    ms = [int(seconds * 1000) for seconds in times]
    return [step, provider.breaker_failures, *ms, provider.version, int(BLOCK * 1000)]


class _LocalBreaker:
    """The same transitions in memory (lua/breaker.lua says why each is as it is)."""

    def __init__(self) -> None:
        self.failures: list[float] = []
        self.open_until = 0.0
        self.probe_until = 0.0
        self.blocked_until = 0.0
        self.blocked_version = ""

    def step(self, upstream: UpstreamConfig, step: str) -> State:
        now, provider = time.monotonic(), upstream.provider
        if step == "block":
            self.blocked_until, self.blocked_version = now + BLOCK, provider.version
        elif step == "fail":
            self._fail(now, provider.breaker_failures, provider.breaker_window, provider.breaker_reset)
        elif step == "ok" and now >= self.open_until:
            self.failures, self.open_until, self.probe_until = [], 0.0, 0.0
        failures = len(self.failures)
        if self.blocked_until > now and self.blocked_version == provider.version:
            return State("blocked", self.blocked_until - now, failures)
        if not self.open_until:
            return State("closed", 0, failures)
        if now < self.open_until:
            return State("open", self.open_until - now, failures)
        if self.probe_until > now:
            return State("open", min(self.probe_until - now, 1.0), failures)
        if step == "ask":
            self.probe_until = now + PROBE
        return State("probe", 0, failures)

    def _fail(self, now: float, threshold: int, window: float, reset: float) -> None:
        if self.open_until:
            if now >= self.open_until:
                self.open_until, self.probe_until = now + reset, 0.0
            return
        self.failures = [*(at for at in self.failures if now - at <= window), now][-threshold:]
        if len(self.failures) >= threshold:
            self.open_until = now + reset
