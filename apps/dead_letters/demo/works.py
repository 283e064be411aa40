"""What the demo's tasks are and when each of their attempts was: thought out first, then made (`making`)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from apps.core import ids
from apps.dead_letters.demo import texts
from apps.dead_letters.demo.failures import (
    CAUSES,
    CHAT,
    EMBEDDINGS,
    OUTAGE,
    RATE_LIMITED,
    WORKING,
    Cause,
    Upstream,
)
from apps.tasks import states

DAY = 24.0  # hours
STUMBLE = 0.06  # of the tasks that succeed: they did so only after a retry
UNFINISHED, MOST_UNFINISHED = 0.01, 20
PRIORITIES = (states.HIGH, states.DEFAULT, states.DEFAULT, states.DEFAULT, states.LOW)


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt. cause: why it failed, None where it succeeded. finished: its end."""

    started: datetime
    finished: datetime
    cause: Cause | None = None

    @property
    def milliseconds(self) -> int:
        """How long it took."""
        return round((self.finished - self.started).total_seconds() * 1000)


@dataclass(slots=True)
class Work:
    """A task. state: where it ends. wait: seconds until it is due, where it is not finished. key: its place."""

    id: UUID
    kind: str
    state: str
    priority: str
    key: int
    upstream: Upstream
    created: datetime
    args: dict[str, Any]
    used: tuple[int, int]
    tries: list[Try] = field(default_factory=list)
    wait: float = 0.0

    @property
    def finished(self) -> datetime:
        """The end of the last attempt."""
        return self.tries[-1].finished


def think(count: int, failing: float, *, keys: int, now: datetime, rng: Random) -> Iterator[Work]:
    """So many tasks of the last day, about `failing` of them dead, and the outage of OUTAGE among them."""
    dead = round(count * failing)
    unfinished = min(round((count - dead) * UNFINISHED), MOST_UNFINISHED)
    causes = _dealt(dead, rng)
    for cause in causes:
        ended = now - timedelta(hours=rng.triangular(*cause.hours))
        yield _failed(cause, ended, rng, keys)
    for number in range(unfinished):
        yield _unfinished(number, now, rng, keys)
    for _ in range(count - dead - unfinished):
        yield _succeeded(now, rng, keys)


def _dealt(dead: int, rng: Random) -> list[Cause]:
    """A cause for each death: each cause once, if there are enough, and the others by their shares."""
    first = list(CAUSES[:dead])
    return first + rng.choices(CAUSES, [cause.share for cause in CAUSES], k=dead - len(first))


def _failed(cause: Cause, ended: datetime, rng: Random, keys: int) -> Work:
    tries: list[Try] = []
    moment = ended
    for number in range(cause.tries, 0, -1):  # from the last to the first
        started = moment - timedelta(seconds=rng.uniform(*cause.seconds))
        tries.insert(0, Try(started, moment, cause))
        moment = started - timedelta(seconds=rng.uniform(0.1, 2.0 ** (number - 1)))
    return _work(cause.kind, states.DEAD, cause.upstream, tries, moment, rng, keys, long=cause.long)


def _succeeded(now: datetime, rng: Random, keys: int) -> Work:
    kind = EMBEDDINGS if rng.random() < 0.25 else CHAT
    ago = rng.uniform(0.005, DAY)
    upstreams = WORKING[kind]
    if OUTAGE[0] <= ago <= OUTAGE[1]:  # what was down meanwhile has answered nobody
        upstreams = tuple(upstream for upstream in upstreams if upstream.provider != "vllm")
    upstream = rng.choice(upstreams)
    started = now - timedelta(hours=ago)
    tries = [Try(started, started + timedelta(seconds=min(rng.lognormvariate(0.2, 0.6), 15.0)))]
    stumbles = [cause for cause in CAUSES if cause.upstream is upstream and cause.tries > 1 and not cause.long]
    if stumbles and rng.random() < STUMBLE:
        ended = started - timedelta(seconds=rng.uniform(0.1, 2.0))
        cause = rng.choice(stumbles)
        tries.insert(0, Try(ended - timedelta(seconds=rng.uniform(*cause.seconds)), ended, cause))
    created = tries[0].started - timedelta(seconds=rng.uniform(0.01, 0.5))
    return _work(kind, states.SUCCEEDED, upstream, tries, created, rng, keys)


def _unfinished(number: int, now: datetime, rng: Random, keys: int) -> Work:
    if number % 2:
        made = now - timedelta(minutes=rng.uniform(1, 50))
        work = _work(CHAT, states.PENDING, WORKING[CHAT][0], [], made, rng, keys)
        work.wait = rng.uniform(600, 3600)
        return work
    cause = RATE_LIMITED
    ended = now - timedelta(seconds=rng.uniform(5, 60))
    tries = [Try(ended - timedelta(seconds=rng.uniform(*cause.seconds)), ended, cause)]
    work = _work(CHAT, states.RETRYING, cause.upstream, tries, tries[0].started - timedelta(seconds=0.1), rng, keys)
    work.wait = rng.uniform(120, 540)
    return work


def _work(
    kind: str,
    state: str,
    upstream: Upstream,
    tries: list[Try],
    created: datetime,
    rng: Random,
    keys: int,
    *,
    long: bool = False,
) -> Work:
    args = texts.arguments(kind, rng, long=long)
    return Work(
        # An id bears the time of the accept, by which tasks are found.
        id=UUID(int=ids.first_of(created).int | rng.getrandbits(12) << 64 | rng.getrandbits(62)),
        kind=kind,
        state=state,
        priority=rng.choice(PRIORITIES),
        key=rng.randrange(keys),
        upstream=upstream,
        created=created,
        args=args,
        used=texts.tokens(args, rng),
        tries=tries,
    )
