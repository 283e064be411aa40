"""The decision on each error at each point of a task's life, as a table."""

import pytest

from apps.access.errors import LimitsUnknown
from apps.core import errors
from apps.providers import errors as upstream
from apps.tasks import retry_policy, states
from apps.tasks.errors import ResultNotStorable, UnknownKind
from apps.tasks.kinds import Policy
from apps.tasks.retry_policy import History, backoff, decide, lost

POLICY = Policy(base=1.0, factor=2.0, cap=100.0, max_retries=3, park_limit=600.0)
FRESH = History(attempt=1, charged_failures=0, worker_losses=0)


def most(low: float, high: float) -> float:
    """Jitter that always takes the most."""
    return high


def failed(times: int, *, parked_for: float = 0.0) -> History:
    return History(attempt=times + 1, charged_failures=times, worker_losses=0, parked_for=parked_for)


def shown(error: BaseException, history: History) -> tuple[str, str, bool, float]:
    found = decide(error, history, POLICY, jitter=most)
    return found.state, found.outcome, found.charged, found.delay


PERMANENT = [
    errors.InvalidRequest(), errors.ContextLengthExceeded(), errors.ContentFiltered(), errors.InvalidApiKey(),
    errors.PermissionDenied(), errors.NotFound(), errors.ModelNotFound(), errors.Conflict(), errors.PayloadTooLarge(),
    errors.Timeout(), errors.InternalError(), UnknownKind(), ResultNotStorable(), upstream.UpstreamCredentials(),
    upstream.UpstreamRefused("no", status=400), upstream.UpstreamRefused("no", status=422),
]  # fmt: skip
TRANSIENT = [
    upstream.UpstreamBroken(), upstream.UpstreamTimeout(), upstream.UpstreamUnreachable(),
    upstream.StreamInterrupted(), errors.UpstreamError(),
]  # fmt: skip
LIMITED = [
    upstream.UpstreamRateLimited(retry_after=7), upstream.UpstreamBroken(retry_after=7),
    errors.RateLimitExceeded(retry_after=7),
]  # fmt: skip
CLOSED = [errors.ServiceUnavailable(retry_after=7), errors.BudgetExceeded(retry_after=7)]


def name(error: BaseException) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", PERMANENT, ids=name)
def test_what_no_retry_can_help_dies_at_once(error: errors.RedriveError) -> None:
    assert shown(error, FRESH) == ("dead", "failed", True, 0.0)


@pytest.mark.parametrize("error", TRANSIENT, ids=name)
def test_what_may_pass_is_tried_as_often_as_the_policy_says(error: errors.RedriveError) -> None:
    assert [shown(error, failed(times)) for times in range(4)] == [
        ("retrying", "failed", True, 1.0),
        ("retrying", "failed", True, 2.0),
        ("retrying", "failed", True, 4.0),
        ("dead", "failed", True, 0.0),
    ]


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("y"), SystemExit(1)], ids=name)
def test_a_bug_is_tried_twice(error: BaseException) -> None:
    assert [shown(error, failed(times))[0] for times in range(3)] == ["retrying", "dead", "dead"]


@pytest.mark.parametrize("error", LIMITED, ids=name)
def test_a_limited_rate_is_waited_for_without_an_end_and_without_a_charge(error: errors.RedriveError) -> None:
    assert shown(error, FRESH) == ("retrying", "rate_limited", False, 7.0)
    assert shown(error, failed(3)) == ("retrying", "rate_limited", False, 8.0)  # no sooner than the backoff
    assert shown(error, failed(500)) == ("retrying", "rate_limited", False, 100.0)


def test_a_request_that_exceeds_its_limit_by_itself_is_not_waited_for_for_ever() -> None:
    assert [shown(errors.RateLimitExceeded(), failed(times))[0] for times in (0, 2, 3)] == [
        "retrying", "retrying", "dead",
    ]  # fmt: skip
    assert shown(errors.RateLimitExceeded(), FRESH)[1:3] == ("failed", True)


@pytest.mark.parametrize("error", CLOSED, ids=name)
@pytest.mark.parametrize(
    ("parked_for", "expected"),
    [
        (0.0, ("retrying", "parked", False, 7.0)),
        (596.0, ("retrying", "parked", False, 4.01)),  # no longer than is left, and then once more
        (600.0, ("dead", "failed", True, 0.0)),
    ],
)
def test_a_closed_door_is_waited_at_for_the_limit_of_parking(
    error: errors.RedriveError, parked_for: float, expected: tuple[str, str, bool, float]
) -> None:
    state, outcome, charged, delay = shown(error, failed(3, parked_for=parked_for))
    assert (state, outcome, charged, pytest.approx(delay)) == expected


@pytest.mark.parametrize(("retry_after", "delay"), [(None, 5.0), (0.0, 5.0), (0.01, 0.2), (3600.0, 60.0)])
def test_a_door_is_looked_at_neither_all_the_time_nor_too_seldom(retry_after: float | None, delay: float) -> None:
    found = decide(errors.ServiceUnavailable(retry_after=retry_after), FRESH, POLICY)
    assert (found.delay, found.parked, found.frozen) == (delay, True, False)


def test_limits_that_nobody_knows_stop_the_time() -> None:
    found = decide(LimitsUnknown(), failed(9, parked_for=9999.0), POLICY)
    assert (found.state, found.parked, found.frozen, found.charged) == ("retrying", False, True, False)
    assert 2.0 <= found.delay <= 6.0


@pytest.mark.parametrize(
    ("losses", "idempotent", "state", "queue", "delay"),
    [
        (1, True, states.RETRYING, "", 1.0),
        (2, True, states.RETRYING, "", 5.0),
        (3, True, states.RETRYING, states.QUARANTINE, 0.0),
        (4, True, states.RETRYING, states.QUARANTINE, 0.0),
        (5, True, states.DEAD, "", 0.0),
        (1, False, states.DEAD, "", 0.0),
    ],
)
def test_a_lost_worker_is_never_charged(losses: int, idempotent: bool, state: str, queue: str, delay: float) -> None:
    found = lost(losses, idempotent=idempotent, jitter=most)
    assert (found.state, found.queue, found.delay, found.charged, found.lost) == (state, queue, delay, False, True)


def test_backoff_is_full_jitter_below_the_cap() -> None:
    assert [backoff(POLICY, failures, most) for failures in (0, 1, 3, 6, 7, 10_000)] == [1, 2, 8, 64, 100, 100]
    tried = [backoff(POLICY, 3) for _ in range(200)]
    assert min(tried) < 2 < 6 < max(tried) <= 8


def test_a_kind_with_delays_of_its_own_keeps_to_them() -> None:
    policy = Policy(delays=(5.0, 60.0))
    assert [backoff(policy, failures, most) for failures in range(4)] == pytest.approx([5.5, 66, 66, 66])
    decisions = [decide(upstream.UpstreamBroken(), failed(times), policy).state for times in range(3)]
    assert decisions == ["retrying", "retrying", "dead"]


def test_no_number_of_a_policy_makes_it_raise() -> None:
    for policy in (
        Policy(factor=1e300),
        Policy(cap=0.0),
        Policy(base=0.0),
        Policy(max_retries=0),
        Policy(park_limit=0),
    ):
        for error in (*PERMANENT, *TRANSIENT, *LIMITED, *CLOSED, ValueError("x")):
            for history in (FRESH, failed(10_000, parked_for=1e9)):
                try:
                    found = retry_policy.decide(error, history, policy)
                except OverflowError:
                    pytest.fail(f"{policy} {name(error)}")
                assert found.delay >= 0
