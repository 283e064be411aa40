"""Decides what an attempt's failure means for its task: retry, wait, or death. The one place where tasks retry.

permanent -> dead at once. transient -> full jitter, charged. rate limited -> not charged, until the deadline. A
closed door (breaker, budget, no place) -> parked, not charged, up to `park_limit`; while Redis is away, which says
nothing of the door, that time stands still. A bug -> two tries. A lost worker is never charged, see `lost`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from apps.access.errors import LimitsUnknown
from apps.core import errors
from apps.providers.errors import UpstreamBroken, UpstreamRateLimited
from apps.tasks import states
from apps.tasks.kinds import Policy
from apps.tasks.models import TaskAttempt

PERMANENT = frozenset({400, 401, 402, 403, 404, 409, 413, 422})
BUG_TRIES = 2
LOST_DELAYS = (1.0, 5.0)  # seconds before the first and the second try after a lost worker
QUARANTINED_AT = 3  # losses of a worker after which a task runs apart from the others
UNKNOWN_DELAY = (2.0, 6.0)  # seconds to the next look whether Redis is there again
ALONE_AT = 4  # and after which it runs with nothing beside it; a loss there is its death

Outcome = TaskAttempt.Outcome
Jitter = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the task. delay: seconds to the next attempt. charged: against the policy's retries.

    parked: its time behind a closed door goes on. frozen: that time, if it has begun, stands still for `delay`.
    queue: where it goes on, if not where it was. lost: its worker is gone.
    """

    state: str
    outcome: str
    delay: float = 0.0
    charged: bool = False
    parked: bool = False
    queue: str = ""
    lost: bool = False
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What the task went through so far, this attempt not included. parked_for: seconds, 0 if it is not parked."""

    attempt: int
    charged_failures: int
    worker_losses: int
    parked_for: float = 0.0


def decide(error: BaseException, history: History, policy: Policy, *, jitter: Jitter = random.uniform) -> Decision:
    """The decision on an attempt that raised `error`."""
    if not isinstance(error, errors.RedriveError):
        dies = history.charged_failures + 1 >= BUG_TRIES
        return _charged(history, policy, jitter, dies=dies)
    if isinstance(error, LimitsUnknown):
        return Decision(states.RETRYING, Outcome.PARKED, delay=jitter(*UNKNOWN_DELAY), frozen=True)
    if isinstance(error, errors.BudgetExceeded | errors.ServiceUnavailable):
        return _parked(error, history, policy)
    if _is_rate_limit(error):
        wait = max(backoff(policy, min(history.attempt - 1, 20), jitter), error.retry_after or 0.0)
        return Decision(states.RETRYING, Outcome.RATE_LIMITED, delay=wait)
    if error.status in PERMANENT or not error.retryable:
        return Decision(states.DEAD, Outcome.FAILED, charged=True)
    return _charged(history, policy, jitter, dies=history.charged_failures >= _retries(policy))


def lost(losses: int, *, idempotent: bool, jitter: Jitter = random.uniform) -> Decision:
    """The decision on an attempt whose worker is gone, the `losses`-th of its task."""
    if not idempotent or losses > ALONE_AT:
        return Decision(states.DEAD, Outcome.WORKER_LOST, lost=True)
    if losses >= QUARANTINED_AT:
        return Decision(states.RETRYING, Outcome.WORKER_LOST, queue=states.QUARANTINE, lost=True)
    delay = jitter(0.5, 1.0) * LOST_DELAYS[losses - 1]
    return Decision(states.RETRYING, Outcome.WORKER_LOST, delay=delay, lost=True)


def backoff(policy: Policy, failures: int, jitter: Jitter = random.uniform) -> float:
    """Seconds before the next try after `failures` earlier ones (full jitter, AWS Architecture Blog, 2015)."""
    if policy.delays:
        return policy.delays[min(failures, len(policy.delays) - 1)] * jitter(0.9, 1.1)
    try:
        longest = policy.base * policy.factor ** min(failures, 60)
    except OverflowError:  # of an operator's row
        longest = policy.cap
    return jitter(0.0, min(policy.cap, longest))


def _charged(history: History, policy: Policy, jitter: Jitter, *, dies: bool) -> Decision:
    if dies:
        return Decision(states.DEAD, Outcome.FAILED, charged=True)
    delay = backoff(policy, history.charged_failures, jitter)
    return Decision(states.RETRYING, Outcome.FAILED, delay=delay, charged=True)


def _parked(error: errors.RedriveError, history: History, policy: Policy) -> Decision:
    if history.parked_for >= policy.park_limit:
        return Decision(states.DEAD, Outcome.FAILED, charged=True)
    left = policy.park_limit - history.parked_for
    delay = min(max(error.retry_after or 5.0, 0.2), 60.0, left + 0.01)
    return Decision(states.RETRYING, Outcome.PARKED, delay=delay, parked=True)


def _is_rate_limit(error: errors.RedriveError) -> bool:
    if isinstance(error, errors.RateLimitExceeded):
        return error.retry_after is not None  # without it, this request alone exceeds the limit
    return isinstance(error, UpstreamRateLimited) or (
        isinstance(error, UpstreamBroken) and error.retry_after is not None
    )


def _retries(policy: Policy) -> int:
    return len(policy.delays) if policy.delays else policy.max_retries
