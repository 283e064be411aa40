"""The x-ratelimit-* headers of replies."""

import pytest
from redis import Redis

from apps.access.admission import _duration, admit, look
from apps.access.authentication import Limits
from apps.core import errors
from tests.access.conftest import a_caller, reply_headers

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0ms"),
        (20, "20ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (12_340, "12.3s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (95_000, "1m35s"),
    ],
)
def test_a_time_is_shown_in_openais_form(milliseconds: int, shown: str) -> None:
    assert _duration(milliseconds) == shown


async def test_headers_say_what_is_left() -> None:
    headers = reply_headers()
    await admit(a_caller(requests_per_minute=60, tokens_per_minute=6000), tokens=1000, nusd=0)
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-tokens"] == "6000"
    assert headers["x-ratelimit-remaining-tokens"] == "5000"
    assert headers["x-ratelimit-reset-tokens"] == "10s"


async def test_headers_speak_of_tokens_only_where_tokens_are_limited() -> None:
    headers = reply_headers()
    await admit(a_caller(requests_per_minute=60), tokens=1000, nusd=0)
    assert {name for name in headers if "token" in name} == set()


async def test_headers_show_the_tightest_of_several_limits() -> None:
    headers = reply_headers()
    await admit(a_caller(Limits(requests_per_minute=2), requests_per_minute=100), tokens=1, nusd=0)
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"


async def test_a_refusal_shows_that_nothing_is_left() -> None:
    caller = a_caller(requests_per_minute=1)
    await admit(caller, tokens=1, nusd=0)
    headers = reply_headers()
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=1, nusd=0)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] in {"1m0s", "60s", "59.9s"}


async def test_a_refusal_by_tokens_does_not_show_a_request_as_spent() -> None:
    caller = a_caller(requests_per_minute=10, tokens_per_minute=100)
    headers = reply_headers()
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=500, nusd=0)
    refused = headers["x-ratelimit-remaining-requests"]
    await look(caller)
    assert refused == headers["x-ratelimit-remaining-requests"] == "10"


async def test_remaining_is_never_negative(valkey: Redis) -> None:
    caller = a_caller(tokens_per_minute=100)
    admission = await admit(caller, tokens=10, nusd=0)
    await admission.settle(tokens=100_000, nusd=0)
    headers = reply_headers()
    await look(caller)
    assert headers["x-ratelimit-remaining-tokens"] == "0"
