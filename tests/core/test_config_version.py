"""Every change of configuration raises the version, whoever makes it, and the caches are told."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction

from apps.access import keys
from apps.access.models import ApiKey, Limit, Project
from apps.core import config_version
from apps.core.database import in_db
from apps.providers.models import ModelRoute, Provider
from apps.providers.models import Upstream as UpstreamRow
from tests.races import together

TABLES = [
    "access_project",
    "access_apikey",
    "access_limit",
    "providers_provider",
    "providers_modelroute",
    "providers_upstream",
]


@pytest.fixture
def rows(db: None) -> None:
    """One row of each table."""
    project = Project.objects.create(name="p")
    keys.create(project=project, name="k")
    provider = Provider.objects.create(name="p", base_url="http://x/v1")
    route = ModelRoute.objects.create(public_name="m")
    UpstreamRow.objects.create(route=route, provider=provider, model="m")


CHANGES: dict[str, Callable[[], object]] = {
    "project by ORM": lambda: Project.objects.get().save(),
    "project by update": lambda: Project.objects.update(store_bodies=True),
    "project by insert": lambda: Project.objects.create(name="another"),
    "key by ORM": lambda: ApiKey.objects.get().save(),
    "key by update": lambda: ApiKey.objects.update(name="x"),
    "key by delete": lambda: ApiKey.objects.get().delete(),
    "limit by ORM": lambda: Limit.objects.get().save(),
    "limit by update": lambda: Limit.objects.update(concurrency=1),
    "limit by delete": lambda: Limit.objects.all().delete(),
    "provider by ORM": lambda: Provider.objects.get().save(),
    "provider by update": lambda: Provider.objects.update(enabled=False),
    "route by ORM": lambda: ModelRoute.objects.get().save(),
    "route by update": lambda: ModelRoute.objects.update(enabled=False),
    "route by bulk insert": lambda: ModelRoute.objects.bulk_create([ModelRoute(public_name="n")]),
    "upstream by ORM": lambda: UpstreamRow.objects.get().save(),
    "upstream by update": lambda: UpstreamRow.objects.update(weight=2),
    "upstream by delete": lambda: UpstreamRow.objects.all().delete(),
}


def run(statement: str) -> None:
    """Raw SQL, as a person in psql."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("change", CHANGES)
def test_the_version_rises_with_a_change_of(change: str) -> None:
    before = config_version.read()
    CHANGES[change]()
    assert config_version.read() > before


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["UPDATE {0} SET id = id", "TRUNCATE {0} CASCADE"])
def test_the_version_rises_with_raw_sql(table: str, statement: str) -> None:
    run("SET CONSTRAINTS ALL IMMEDIATE")
    before = config_version.read()
    run(statement.format(table))
    assert config_version.read() > before


@pytest.mark.usefixtures("rows")
def test_a_change_that_is_undone_does_not_raise_it() -> None:
    before = config_version.read()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Project.objects.update(store_bodies=True)
        raise ZeroDivisionError
    assert config_version.read() == before


@pytest.mark.usefixtures("rows")
def test_reading_does_not_raise_it() -> None:
    before = config_version.read()
    list(Provider.objects.all())
    assert config_version.read() == before


@pytest.fixture
def told() -> Iterator[list[int]]:
    """How often a listener was called."""
    calls: list[int] = []
    listener = lambda: calls.append(1)  # noqa: E731
    config_version.on_change(listener)
    yield calls
    config_version._listeners.remove(listener)


@pytest.mark.django_db(transaction=True)
async def test_listeners_are_told_of_a_change_once(told: list[int]) -> None:
    await in_db(Project.objects.create, name="first")
    await config_version.check()
    told.clear()
    assert not await config_version.check()
    await in_db(Project.objects.create, name="second")
    assert await config_version.check()
    assert not await config_version.check()
    assert told == [1]


@pytest.mark.django_db(transaction=True)
async def test_a_young_look_is_not_repeated(told: list[int]) -> None:
    await config_version.check()
    told.clear()
    await in_db(Project.objects.create, name="first")
    assert not await config_version.check(if_older_than=60)
    assert await config_version.check(if_older_than=0)
    assert config_version.age() < 5
    assert not config_version.is_stale()


@pytest.mark.django_db(transaction=True)
async def test_the_watch_notices_a_change_by_itself(told: list[int]) -> None:
    await config_version.check()
    told.clear()
    watch = asyncio.create_task(config_version.watch(0.02))
    await in_db(Project.objects.create, name="first")
    async with asyncio.timeout(2):
        while not told:
            await asyncio.sleep(0.01)
    watch.cancel()
    await asyncio.wait({watch})


@pytest.mark.django_db(transaction=True)
def test_eight_changes_at_once_are_eight_versions() -> None:
    before = config_version.read()
    together(8, lambda number: Project.objects.create(name=f"p{number}"))
    assert config_version.read() == before + 8
