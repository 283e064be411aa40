"""One table of transitions for both circuit breakers: the shared one in Valkey and the one in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

import pytest
from redis import Redis

from apps.core.redis import ScriptPipe
from apps.providers import circuit_breaker
from apps.providers.circuit_breaker import State
from apps.providers.contract import UpstreamConfig
from tests.providers.conftest import MakeUpstream
from tests.races import together
from tests.stores import NOBODY_LISTENS, PointRedisAt


class Breaker(Protocol):
    """What both are driven by."""

    async def step(self, upstream: UpstreamConfig, step: str) -> State: ...

    def age(self, upstream: UpstreamConfig, seconds: float) -> None: ...


class Shared:
    """The script in Valkey."""

    def __init__(self, valkey: Redis, url: str) -> None:
        self.valkey = valkey
        self.pipe = ScriptPipe(url, timeout=5)

    async def step(self, upstream: UpstreamConfig, step: str) -> State:
        keys, args = circuit_breaker._keys(upstream), circuit_breaker._args(upstream, step)
        return circuit_breaker._read(await self.pipe.run(circuit_breaker._SCRIPT, keys, args))

    def age(self, upstream: UpstreamConfig, seconds: float) -> None:
        fields, failures = circuit_breaker._keys(upstream)
        milliseconds = int(seconds * 1000)
        found: Any = self.valkey.hgetall(fields)
        for name, value in found.items():
            if name.endswith(b"_until"):
                self.valkey.hset(fields, name, int(value) - milliseconds)
        times: Any = self.valkey.lrange(failures, 0, -1)
        for place, value in enumerate(times):
            self.valkey.lset(failures, place, int(value) - milliseconds)


class InProcess:
    """The one that stands in while Redis is away."""

    def __init__(self) -> None:
        self.breaker = circuit_breaker._LocalBreaker()

    async def step(self, upstream: UpstreamConfig, step: str) -> State:
        return self.breaker.step(upstream, step)

    def age(self, upstream: UpstreamConfig, seconds: float) -> None:
        breaker = self.breaker
        breaker.failures = [at - seconds for at in breaker.failures]
        for name in ("open_until", "probe_until", "blocked_until"):
            if getattr(breaker, name):
                setattr(breaker, name, getattr(breaker, name) - seconds)


@pytest.fixture(params=["shared", "in process"])
def breaker(request: pytest.FixtureRequest, valkey: Redis, settings: Any) -> Breaker:
    """Each of the two."""
    return Shared(valkey, settings.REDRIVE.redis_url) if request.param == "shared" else InProcess()


# Steps: a name, or seconds that pass. The last state's name, and its wait in seconds.
TRANSITIONS: list[tuple[str, list[str | float], str, float]] = [
    ("closed at first", ["ask"], "closed", 0),
    ("closed after two failures", ["fail", "fail", "ask"], "closed", 0),
    ("open after three in a row", ["fail", "fail", "fail"], "open", 30),
    ("open means no call", ["fail", "fail", "fail", "ask"], "open", 30),
    ("a success between ends the row", ["fail", "fail", "ok", "fail", "fail", "ask"], "closed", 0),
    ("failures older than the window do not count", ["fail", "fail", 61.0, "fail", "ask"], "closed", 0),
    ("failures inside the window count", ["fail", 25.0, "fail", 25.0, "fail", "ask"], "open", 30),
    ("half-open lets a probe through", ["fail", "fail", "fail", 31.0, "ask"], "probe", 0),
    ("half-open lets one probe through", ["fail", "fail", "fail", 31.0, "ask", "ask"], "open", 1),
    ("a look takes no probe", ["fail", "fail", "fail", 31.0, "look", "ask"], "probe", 0),
    ("a probe that succeeds closes it", ["fail", "fail", "fail", 31.0, "ask", "ok", "ask"], "closed", 0),
    ("a probe that fails opens it again", ["fail", "fail", "fail", 31.0, "ask", "fail", "ask"], "open", 30),
    ("a second reset passes again", ["fail"] * 3 + [31.0, "ask", "fail", 31.0, "ask"], "probe", 0),
    ("a probe that never reports is replaced", ["fail"] * 3 + [31.0, "ask", 31.0, "ask"], "probe", 0),
    ("a late failure does not prolong it", ["fail", "fail", "fail", 10.0, "fail", "ask"], "open", 20),
    ("a late success does not close it", ["fail", "fail", "fail", 10.0, "ok", "ask"], "open", 20),
    ("closed again needs three again", ["fail"] * 3 + [31.0, "ask", "ok", "fail", "fail", "ask"], "closed", 0),
    ("refused credentials block it", ["block", "ask"], "blocked", 300),
    ("a block ends by itself", ["block", 301.0, "ask"], "closed", 0),
    ("a block hides an open breaker", ["fail", "fail", "fail", "block", "ask"], "blocked", 300),
]


@pytest.mark.parametrize(
    ("steps", "name", "wait"), [row[1:] for row in TRANSITIONS], ids=[row[0] for row in TRANSITIONS]
)
async def test_a_breaker_is(
    breaker: Breaker, at: MakeUpstream, steps: list[str | float], name: str, wait: float
) -> None:
    upstream = at()
    state = State("", 0, 0)
    for step in steps:
        if isinstance(step, str):
            state = await breaker.step(upstream, step)
        else:
            breaker.age(upstream, step)
    assert state.name == name
    assert state.wait == pytest.approx(wait, abs=1)


async def test_the_number_and_the_times_are_the_providers(breaker: Breaker, at: MakeUpstream) -> None:
    upstream = at(breaker_failures=1, breaker_reset=5)
    state = await breaker.step(upstream, "fail")
    assert (state.name, round(state.wait)) == ("open", 5)
    breaker.age(upstream, 6)
    assert (await breaker.step(upstream, "ask")).name == "probe"


async def test_a_saved_provider_lifts_the_block(breaker: Breaker, at: MakeUpstream) -> None:
    upstream = at(version="2026-01-01")
    await breaker.step(upstream, "block")
    saved = replace(upstream, provider=replace(upstream.provider, version="2026-01-02"))
    assert (await breaker.step(saved, "ask")).name == "closed"


async def test_failures_in_a_row_are_counted(breaker: Breaker, at: MakeUpstream) -> None:
    upstream = at()
    assert [(await breaker.step(upstream, "fail")).failures for _ in range(3)] == [1, 2, 3]


async def test_two_models_of_one_provider_have_two_breakers(valkey: Redis, at: MakeUpstream) -> None:
    upstream = at(breaker_failures=1)
    other = replace(upstream, model="other")
    await circuit_breaker.failed(upstream)
    assert (await circuit_breaker.ask(upstream)).name == "open"
    assert (await circuit_breaker.ask(other)).name == "closed"


def test_of_eight_processes_at_a_half_open_breaker_one_probes(valkey: Redis, settings: Any, at: MakeUpstream) -> None:
    upstream = at(breaker_failures=1)

    def step(step: str) -> str:
        async def once() -> str:
            return (await Shared(valkey, settings.REDRIVE.redis_url).step(upstream, step)).name

        return asyncio.run(once())

    step("fail")
    Shared(valkey, settings.REDRIVE.redis_url).age(upstream, 31)
    assert sorted(map(str, together(8, lambda _: step("ask")))) == ["open"] * 7 + ["probe"]


async def test_of_eight_calls_of_one_process_at_a_half_open_breaker_one_probes(
    valkey: Redis, settings: Any, at: MakeUpstream
) -> None:
    upstream = at(breaker_failures=1)
    await circuit_breaker.failed(upstream)
    Shared(valkey, settings.REDRIVE.redis_url).age(upstream, 31)
    circuit_breaker._known.clear()
    states = await asyncio.gather(*(circuit_breaker.ask(upstream) for _ in range(8)))
    assert sorted(state.name for state in states) == ["open"] * 7 + ["probe"]


@pytest.mark.parametrize("verb", [circuit_breaker.failed, circuit_breaker.block])
async def test_a_person_closes_it(
    valkey: Redis, at: MakeUpstream, verb: Callable[[UpstreamConfig], Awaitable[None]]
) -> None:
    upstream = at(breaker_failures=1)
    await verb(upstream)
    assert (await asyncio.to_thread(circuit_breaker.look, upstream)).name in {"open", "blocked"}
    assert (await asyncio.to_thread(circuit_breaker.reset, upstream)).name == "closed"
    assert (await circuit_breaker.ask(upstream)).name == "closed"


async def test_a_closed_breaker_is_asked_once_a_second(valkey: Redis, at: MakeUpstream) -> None:
    upstream = at()
    for _ in range(3):
        await circuit_breaker.ask(upstream)
        await circuit_breaker.succeeded(upstream)
    before: Any = valkey.info("commandstats")
    for _ in range(20):
        await circuit_breaker.ask(upstream)
        await circuit_breaker.succeeded(upstream)
    after: Any = valkey.info("commandstats")
    assert upstream.provider.id.hex not in str(valkey.keys("*"))
    assert after["cmdstat_time"]["calls"] - before["cmdstat_time"]["calls"] < 20


async def test_without_redis_this_process_keeps_a_breaker_of_its_own(
    at: MakeUpstream, point_redis_at: PointRedisAt
) -> None:
    point_redis_at(NOBODY_LISTENS)
    upstream = at()
    for _ in range(3):
        await circuit_breaker.failed(upstream)
    state = await circuit_breaker.ask(upstream)
    assert (state.name, round(state.wait)) == ("open", 30)


async def test_when_redis_is_back_its_word_counts(
    at: MakeUpstream, point_redis_at: PointRedisAt, settings: Any
) -> None:
    url = settings.REDRIVE.redis_url
    point_redis_at(NOBODY_LISTENS)
    upstream = at(breaker_failures=1)
    await circuit_breaker.failed(upstream)
    point_redis_at(url, redis_timeout=5.0)
    await circuit_breaker.succeeded(upstream)
    assert (await circuit_breaker.ask(upstream)).name == "closed"


async def test_looking_at_many_gives_each_its_state(valkey: Redis, at: MakeUpstream) -> None:
    whole, broken = at(), at(breaker_failures=1)
    await circuit_breaker.failed(broken)
    states = await asyncio.to_thread(circuit_breaker.look_all, [whole, broken])
    assert [state.name for state in states] == ["closed", "open"]
