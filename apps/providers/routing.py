"""The in-process snapshot of routes and providers, and the order in which a call tries its upstreams."""

import asyncio
import random

import structlog

from apps.core import config_version, errors
from apps.core.crypto import UndecipherableError
from apps.core.database import LOST_CONNECTION, in_db
from apps.providers.contract import ProviderConfig, RouteConfig, UpstreamConfig
from apps.providers.models import ModelRoute, Provider

log = structlog.get_logger(__name__)

_routes: dict[str, RouteConfig] = {}
_generation = 0  # grows with every change of the configuration
_loaded: int | None = None  # the generation that _routes shows
_lock: asyncio.Lock | None = None


def forget() -> None:
    """Load the snapshot again at its next use; while Postgres is away the old one stands."""
    global _generation
    _generation += 1


async def routes() -> dict[str, RouteConfig]:
    """All enabled routes by public name."""
    if _loaded != _generation:
        await _load()
    return _routes


async def find(public_name: str) -> RouteConfig:
    """The route of a public model name. Raises ModelNotFound.

    A name that the snapshot lacks is looked for once more in Postgres' newest version, so that a route made a
    moment ago works at once.
    """
    route = (await routes()).get(public_name)
    if route is None:
        try:
            await config_version.check(if_older_than=0.05)
        except LOST_CONNECTION:
            raise errors.ServiceUnavailable() from None
        route = (await routes()).get(public_name)
    if route is None:
        raise errors.ModelNotFound(f"The model `{public_name}` does not exist or is not enabled.", param="model")
    return route


def in_order(route: RouteConfig) -> list[UpstreamConfig]:
    """The route's upstreams: by position, and by chance according to their weight among equals."""
    if len(route.upstreams) < 2:
        return [*route.upstreams]
    # Weighted sampling without replacement by exponential keys (Efraimidis & Spirakis, 2006).
    return sorted(route.upstreams, key=lambda upstream: (upstream.position, random.expovariate(upstream.weight)))


async def _load() -> None:
    global _routes, _loaded, _lock
    _lock = _lock or asyncio.Lock()
    async with _lock:
        if _loaded == _generation:
            return
        generation = _generation
        try:
            _routes = await in_db(load)
        except LOST_CONNECTION:
            if _loaded is None:
                raise
            return
        _loaded = generation


def load() -> dict[str, RouteConfig]:
    """Read the snapshot from Postgres."""
    providers = {provider.pk: provider_config(provider) for provider in _readable_providers()}
    found: dict[str, RouteConfig] = {}
    for route in ModelRoute.objects.filter(enabled=True).prefetch_related("upstreams"):
        upstreams = tuple(
            UpstreamConfig(providers[row.provider_id], row.model, row.position, row.weight)
            for row in route.upstreams.all()
            if row.provider_id in providers
        )
        found[route.public_name] = RouteConfig(
            public_name=route.public_name,
            upstreams=upstreams,
            created=int(route.created_at.timestamp()),
            default_params=dict(route.default_params),
            context_window=route.context_window,
            max_output_tokens=route.max_output_tokens,
            forward_unknown=route.unknown_fields == ModelRoute.UnknownFields.FORWARD,
            fallback_after=route.fallback_after,
            input_nusd=None if route.input_usd_per_million is None else float(route.input_usd_per_million) * 1000,
            output_nusd=None if route.output_usd_per_million is None else float(route.output_usd_per_million) * 1000,
        )
    return found


def provider_config(provider: Provider) -> ProviderConfig:
    """The plain values of a provider's row."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if provider.api_key:
        headers["Authorization"] = f"Bearer {provider.api_key}"
    for line in provider.headers.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return ProviderConfig(
        id=provider.pk,
        name=provider.name,
        kind=provider.kind,
        base_url=provider.base_url.rstrip("/"),
        headers=headers,
        connect_timeout=provider.connect_timeout,
        first_token_timeout=provider.first_token_timeout,
        idle_timeout=provider.idle_timeout,
        total_timeout=provider.total_timeout,
        max_concurrency=provider.max_concurrency,
        breaker_failures=provider.breaker_failures,
        breaker_window=provider.breaker_window,
        breaker_reset=provider.breaker_reset,
        version=provider.updated_at.isoformat(),
    )


def _readable_providers() -> list[Provider]:
    rows: list[Provider] = []
    for pk in Provider.objects.filter(enabled=True).values_list("pk", flat=True):
        try:
            rows.append(Provider.objects.get(pk=pk))
        except UndecipherableError:
            log.error("provider_secret_undecipherable", provider_id=str(pk))
    return rows
