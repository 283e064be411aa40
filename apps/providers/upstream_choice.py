"""Chooses the next upstream of a call and takes a place at it; tells the breaker what an error says about it."""

import functools
from collections import defaultdict

from apps.core import errors
from apps.core.metrics import UPSTREAM_IN_FLIGHT
from apps.providers import circuit_breaker
from apps.providers.contract import UpstreamConfig
from apps.providers.errors import (
    StreamInterrupted,
    UpstreamBroken,
    UpstreamCredentials,
    UpstreamTimeout,
    UpstreamUnreachable,
)

SPEAKS_AGAINST_UPSTREAM = (UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, StreamInterrupted)

in_flight: dict[str, int] = defaultdict(int)  # provider's name -> its calls in this process


class Lease:
    """One of the calls that a provider serves at the same time."""

    __slots__ = ("_held", "upstream")

    def __init__(self, upstream: UpstreamConfig) -> None:
        name = upstream.provider.name
        if name not in in_flight:
            UPSTREAM_IN_FLIGHT.labels(name).set_function(functools.partial(in_flight.__getitem__, name))
        self.upstream = upstream
        self._held = True
        in_flight[name] += 1

    def end(self) -> None:
        """Give the place back; once is enough."""
        if self._held:
            in_flight[self.upstream.provider.name] -= 1
            self._held = False


async def choose(
    candidates: list[UpstreamConfig], failed_at: list[UpstreamConfig], refused: set[str]
) -> Lease | errors.RedriveError:
    """A place at the next healthy upstream, untried ones first; or why there is none."""
    waits: list[float] = []
    blocked = 0
    untried = [upstream for upstream in candidates if upstream not in failed_at]
    for upstream in [*untried, *(upstream for upstream in reversed(candidates) if upstream in failed_at)]:
        if str(upstream) in refused:
            continue
        if in_flight[upstream.provider.name] >= upstream.provider.max_concurrency:
            waits.append(1.0)
            continue
        lease = Lease(upstream)  # taken before the breaker is asked, so that no other call slips in between
        try:
            state = await circuit_breaker.ask(upstream)
        except BaseException:
            lease.end()
            raise
        if state.name in {"closed", "probe"}:
            return lease
        lease.end()
        if state.name == "blocked":
            blocked += 1
        else:
            waits.append(state.wait)
    if blocked and not waits:
        return UpstreamCredentials(should_retry=False)
    return errors.ServiceUnavailable(
        "No provider of this model can take a call right now.", retry_after=round(min(waits), 3) if waits else 60
    )


async def judge(upstream: UpstreamConfig, error: errors.RedriveError) -> None:
    """Tell the breaker what an error says about the upstream."""
    if isinstance(error, UpstreamCredentials):
        await circuit_breaker.block(upstream)
    elif isinstance(error, SPEAKS_AGAINST_UPSTREAM):
        await circuit_breaker.failed(upstream)
    else:
        await circuit_breaker.succeeded(upstream)  # it answers, and is not to blame
