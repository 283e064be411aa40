"""The snapshot of routes, and the order in which a call tries its upstreams."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from django.db import connection

from apps.core import config_version, errors
from apps.core.database import in_db
from apps.providers import routing
from apps.providers.contract import RouteConfig
from apps.providers.models import ModelRoute, Provider
from apps.providers.models import Upstream as UpstreamRow
from tests.conftest import MakeRoute
from tests.providers.conftest import MakeUpstream


@pytest.fixture(autouse=True)
def _another_loop() -> Iterator[None]:
    routing._lock = None
    yield
    routing._lock = None
    routing.forget()


def test_a_lower_position_goes_first(at: MakeUpstream) -> None:
    route = RouteConfig("public", (at("c", position=3), at("a", position=1), at("b", position=2)))
    assert [one.model for one in routing.in_order(route)] == ["a", "b", "c"]


def test_equals_share_by_weight(at: MakeUpstream) -> None:
    route = RouteConfig("public", (at("three", weight=3), at("one", weight=1)))
    first = Counter(routing.in_order(route)[0].model for _ in range(4000))
    assert first["three"] / 4000 == pytest.approx(0.75, abs=0.05)


def test_every_upstream_is_in_the_order_once(at: MakeUpstream) -> None:
    route = RouteConfig("public", tuple(at(str(number), weight=number + 1) for number in range(6)))
    assert {one.model for one in routing.in_order(route)} == set("012345")
    assert routing.in_order(RouteConfig("public", ())) == []


@pytest.mark.django_db
def test_the_snapshot_holds_plain_values(make_route: MakeRoute) -> None:
    name = make_route(
        provider={"headers": "X-Team: blue\nX-Other:  two ", "max_concurrency": 7},
        input_usd_per_million=2,
        fallback_after=5.0,
        unknown_fields="forward",
    )
    route = routing.load()[name]
    provider = route.upstreams[0].provider
    assert provider.headers["Authorization"] == "Bearer sk-upstream-secret"
    assert (provider.headers["X-Team"], provider.headers["X-Other"]) == ("blue", "two")
    assert (provider.max_concurrency, route.fallback_after, route.forward_unknown) == (7, 5.0, True)
    assert (route.input_nusd, route.output_nusd) == (2000, None)
    assert "sk-upstream-secret" not in repr(route)


@pytest.mark.django_db
def test_what_is_disabled_is_left_out(make_route: MakeRoute) -> None:
    hidden, half = make_route(enabled=False), make_route(upstreams=["a", "b"])
    Provider.objects.filter(upstreams__route__public_name=half, upstreams__model="a").update(enabled=False)
    found = routing.load()
    assert hidden not in found
    assert [one.model for one in found[half].upstreams] == ["b"]


@pytest.mark.django_db
def test_a_provider_whose_secret_cannot_be_opened_does_not_take_the_others_with_it(make_route: MakeRoute) -> None:
    lost, whole = make_route(), make_route()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE providers_provider SET api_key = 'nonsense' WHERE id IN "
            "(SELECT provider_id FROM providers_upstream WHERE model = %s)",
            [lost],
        )
    found = routing.load()
    assert found[lost].upstreams == ()
    assert len(found[whole].upstreams) == 1


@pytest.mark.django_db
def test_a_saved_provider_has_another_version(make_route: MakeRoute) -> None:
    make_route()
    provider = Provider.objects.get()
    before = routing.provider_config(provider).version
    provider.save()
    assert routing.provider_config(provider).version != before


@pytest.mark.django_db(transaction=True)
async def test_a_route_made_a_moment_ago_is_found_at_once(make_route: MakeRoute) -> None:
    await config_version.check()
    await routing.routes()
    await asyncio.sleep(0.06)
    name = await in_db(make_route)
    assert (await routing.find(name)).public_name == name


@pytest.mark.django_db(transaction=True)
async def test_a_name_that_nobody_made_is_not_found() -> None:
    with pytest.raises(errors.ModelNotFound) as raised:
        await routing.find("no-such-model")
    assert (raised.value.status, raised.value.code, raised.value.param) == (404, "model_not_found", "model")


@pytest.mark.django_db(transaction=True)
async def test_a_changed_route_is_seen_after_the_next_look_at_the_version(make_route: MakeRoute) -> None:
    name = await in_db(make_route)
    await config_version.check()
    assert (await routing.find(name)).context_window == 128_000
    await in_db(lambda: ModelRoute.objects.filter(public_name=name).update(context_window=5))
    assert (await routing.find(name)).context_window == 128_000
    assert await config_version.check()
    assert (await routing.find(name)).context_window == 5
    await in_db(lambda: UpstreamRow.objects.filter(route__public_name=name).delete())
    assert await config_version.check()
    assert (await routing.find(name)).upstreams == ()


@pytest.mark.django_db(transaction=True)
async def test_fifty_requests_at_once_load_the_snapshot_once(make_route: MakeRoute) -> None:
    name = await in_db(make_route)
    await config_version.check()
    routing.forget()
    found = await asyncio.gather(*(routing.find(name) for _ in range(50)))
    assert len({id(route) for route in found}) == 1
