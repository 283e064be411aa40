"""Registers a provider with its routes in one step, for the command line and for `up`."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Max

from apps.access import audit
from apps.providers.models import ModelRoute, Provider, Upstream


class RegistrationError(Exception):
    """What was given is not valid; the message says which part."""


@transaction.atomic
def register(
    *,
    name: str,
    base_url: str,
    api_key: str | None,
    models: list[tuple[str, str]],
    keep_routes: bool = False,
    actor: Any = None,
) -> tuple[Provider, bool, list[str]]:
    """Add or update a provider; models are (public name, upstream name).

    Returns the provider, whether it is new, and the public names that it now serves. Raises RegistrationError and
    then changes nothing.
    """
    _wait_for_others()
    provider = Provider.objects.filter(name=name).first()
    is_new = provider is None
    provider = provider or Provider(name=name)
    before = None if is_new else audit.snapshot(provider)
    provider.base_url = base_url
    if api_key is not None:
        provider.api_key = api_key
    _check(provider, name)
    provider.save()
    audit.record("create" if is_new else "update", provider, actor=actor, before=before, after=audit.snapshot(provider))
    if keep_routes and not is_new:
        return provider, is_new, []
    for public_name, model in models:
        _serve(provider, public_name, model)
    return provider, is_new, [public_name for public_name, _ in models]


def _wait_for_others() -> None:
    # Two commands at once would both find no row and one would fail; registering is rare, so they take turns.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('redrive.providers.registration'))")


def _serve(provider: Provider, public_name: str, model: str) -> None:
    route = ModelRoute.objects.filter(public_name=public_name).first()
    if route is None:
        route = ModelRoute(public_name=public_name)
        _check(route, public_name)
        route.save()
    if Upstream.objects.filter(route=route, provider=provider, model=model).exists():
        return
    last = Upstream.objects.filter(route=route).aggregate(last=Max("position"))["last"] or 0
    upstream = Upstream(route=route, provider=provider, model=model, position=last + 1)
    _check(upstream, model)
    upstream.save()


def _check(row: Any, name: str) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        problems = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
        raise RegistrationError(f"{name}: {problems}") from None
