"""A key's life as its holder meets it: models it may use, rotation, being disabled, guessing."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings

from apps.access import keys
from apps.providers.models import ModelRoute
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys import wire
from tests.journeys.conftest import Client
from tests.journeys.wire import assert_error, eventually
from tests.upstream import Upstream

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_model_outside_the_keys_patterns_is_403_and_not_listed(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey, upstream: Upstream
) -> None:
    other, allowed = route(), route()
    client = Client(gateway.url, make_key(allowed_models=[f"{allowed[:-2]}*", "gpt-*"])[1])
    assert client.chat(allowed).status == 200
    assert_error(client.chat(other), 403, "permission_denied", param="model")
    assert upstream.requests(other) == []
    assert [model["id"] for model in client.call("GET", "/v1/models").json()["data"]] == [allowed]
    assert client.call("GET", f"/v1/models/{allowed}").json()["id"] == allowed
    assert client.call("GET", f"/v1/models/{other}").status == 404


def test_a_disabled_key_is_refused_within_a_second_though_it_is_cached(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    model = route()
    row, secret = make_key()
    client = Client(gateway.url, secret)
    assert client.chat(model).status == 200
    keys.set_disabled(key=row, disabled=True)
    assert eventually(lambda: client.chat(model).status == 401, within=3, every=0.1)
    keys.set_disabled(key=row, disabled=False)
    assert eventually(lambda: client.chat(model).status == 200, within=3, every=0.25)


def test_a_rotated_key_works_in_both_forms_during_its_overlap(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    model = route()
    row, old = make_key()
    assert Client(gateway.url, old).chat(model).status == 200
    new = keys.rotate(key=row, overlap=timedelta(hours=1))
    assert [Client(gateway.url, secret).chat(model).status for secret in (old, new)] == [200, 200]


def test_a_key_rotated_without_overlap_ends_within_a_second(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    model = route()
    row, old = make_key()
    assert Client(gateway.url, old).chat(model).status == 200
    new = keys.rotate(key=row, overlap=timedelta(0))
    assert Client(gateway.url, new).chat(model).status == 200
    assert eventually(lambda: Client(gateway.url, old).chat(model).status == 401, within=3, every=0.1)


def test_an_overlap_ends_by_itself(route: MakeRoute, gateway: Gateway, make_key: MakeKey) -> None:
    model = route()
    row, old = make_key()
    keys.rotate(key=row, overlap=timedelta(seconds=1))
    assert Client(gateway.url, old).chat(model).status == 200
    assert eventually(lambda: Client(gateway.url, old).chat(model).status == 401, within=4, every=0.2)


def test_a_route_that_is_switched_off_is_gone_within_a_second(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    model = route()
    client = Client(gateway.url, make_key()[1])
    assert client.chat(model).status == 200
    ModelRoute.objects.filter(public_name=model).update(enabled=False)
    assert eventually(lambda: client.chat(model).status == 404, within=3, every=0.1)


@pytest.fixture
def lonely_gateway(transactional_db: None) -> Iterator[Gateway]:
    """A gateway for this test alone: it counts refused keys by address, and all tests come from one."""
    served = Gateway({"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url})
    yield served
    served.stop()


def test_guessing_keys_is_429_after_thirty_and_known_keys_go_on(
    route: MakeRoute, lonely_gateway: Gateway, make_key: MakeKey
) -> None:
    model = route()
    known = Client(lonely_gateway.url, make_key()[1])
    assert known.chat(model).status == 200
    replies = [wire.call(lonely_gateway.url, "GET", "/v1/models", key=f"rd_guess{index}") for index in range(31)]
    assert [reply.status for reply in replies] == [401] * 30 + [429]
    assert_error(replies[-1], 429, "rate_limit_exceeded")
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    assert known.chat(model).status == 200
