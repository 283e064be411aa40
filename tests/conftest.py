"""Fixtures that every test may use: the scripted upstream, the real gateway, makers of keys and routes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import connection, connections
from openai import OpenAI

from apps.access import keys
from apps.access.models import ApiKey, Limit, Project
from apps.providers.models import ModelRoute, Provider
from apps.providers.models import Upstream as UpstreamRow
from tests.gateway import Gateway
from tests.receiver import HOST, Receiver
from tests.upstream import Upstream

MakeKey = Callable[..., tuple[ApiKey, str]]
MakeRoute = Callable[..., str]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Databases are made and dropped here, which a slow disk may take its time for."""
    options = connection.settings_dict["OPTIONS"]
    options["options"] = options["options"].replace("statement_timeout=30s", "statement_timeout=120s")


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """One scripted provider for the worker; tests keep apart by the model names they make up."""
    return Upstream().start()


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """One receiver of webhooks for the worker; tests keep apart by the paths they make up."""
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def gateway(django_db_setup: None, django_db_blocker: Any) -> Iterator[Gateway]:
    """One gateway process for the worker, on its test database. Tests that use it need `transaction=True`."""
    with django_db_blocker.unblock():
        url = database_url()
    environment = {"REDRIVE_DATABASE_URL": url, "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}
    served = Gateway({**environment, "REDRIVE_OUTBOUND_ALLOW": HOST})
    yield served
    served.stop()


def database_url() -> str:
    """The URL of the test database that this process is connected to."""
    found = connection.settings_dict
    return f"postgresql://{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@pytest.fixture
def make_key(db: None) -> MakeKey:
    """Make a key of a project of its own: `make_key(rpm=10, tpm=None, ..., project_limits={...})`."""

    def make(
        rpm: int | None = 100_000,
        *,
        project: Project | None = None,
        project_limits: dict[str, Any] | None = None,
        project_fields: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        **fields: Any,
    ) -> tuple[ApiKey, str]:
        project = project or Project.objects.create(name=f"p-{uuid4().hex[:12]}", **(project_fields or {}))
        if project_limits:
            Limit.objects.create(project=project, **project_limits)
        return keys.create(
            project=project, name="test", limits={"requests_per_minute": rpm, **(limits or {})}, **fields
        )

    return make


@pytest.fixture
def make_route(db: None, upstream: Upstream) -> MakeRoute:
    """Make a provider at the scripted upstream with a route of a fresh name, which it returns.

    `make_route(provider={...fields}, upstreams=["a", "b"])`: with names, each is an upstream at a provider of its
    own, tried in that order; the scripted upstream sees those names as models.
    """

    def make(*, provider: dict[str, Any] | None = None, upstreams: list[str] | None = None, **route: Any) -> str:
        name = f"m-{uuid4().hex[:12]}"
        row = ModelRoute.objects.create(public_name=name, **route)
        for position, model in enumerate(upstreams or [name], start=1):
            fields = {"base_url": upstream.url, "api_key": "sk-upstream-secret", **(provider or {})}
            at = Provider.objects.create(name=f"p-{uuid4().hex[:12]}", **fields)
            UpstreamRow.objects.create(route=row, provider=at, model=model, position=position)
        return name

    return make


@pytest.fixture
def client_of(gateway: Gateway) -> Iterator[Callable[..., OpenAI]]:
    """The official SDK against the gateway: `client_of(secret)`; without its own retries unless asked for."""
    with ExitStack() as made:

        def make(secret: str, **options: Any) -> OpenAI:
            given = {"max_retries": 0, "timeout": 30, **options}
            return made.enter_context(OpenAI(api_key=secret, base_url=f"{gateway.url}/v1", **given))

        yield make


@pytest.fixture(autouse=True)
def _nobody_is_throttled_for_the_test_before() -> None:
    caches["throttles"].clear()


@pytest.fixture(autouse=True)
def _no_connection_survives() -> Iterator[None]:
    yield
    # Database threads of in_db hold connections that would block the next test's flush.
    from apps.core import database

    if database._threads.cache_info().currsize:
        pool = database._threads()
        wait = [pool.submit(connections.close_all) for _ in range(pool._max_workers)]
        for done in wait:
            done.result(5)
