"""Closing a breaker by hand has a permission of its own, in the admin and over REST."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.providers.models import Provider
from tests.operators import post, refusal
from tests.providers.test_providers_admin import page, served, state, step
from tests.stores import NOBODY_LISTENS, PointRedisAt

__all__ = ["served"]
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("given", "may"),
    [
        (["view_provider", "reset_breaker"], True),
        (["view_provider", "change_provider"], False),
        (["reset_breaker"], False),
    ],
)
def test_to_reset_a_breaker_has_a_permission_of_its_own(
    client: Client, django_user_model: Any, served: tuple[Provider, str], given: list[str], may: bool
) -> None:
    provider, model = served
    step(provider, model, "fail", times=3)
    operator = django_user_model.objects.create_user("operator", is_staff=True)
    operator.user_permissions.set(Permission.objects.filter(codename__in=given))
    client.force_login(operator)
    button = reverse("admin:providers_provider_reset_breaker", args=[provider.pk])
    assert (f'action="{button}"' in client.get(page("provider_change", provider.pk)).content.decode()) is may
    script = f"/ops/api/breakers/{provider.name}/reset/"
    for url in (page("provider_reset_breaker", provider.pk), script):
        assert client.get(url).status_code == (405 if url == script and may else 200 if may else 403)
        assert client.post(url, {"model": model}).status_code == (403 if not may else 200 if url == script else 302)
        assert state(provider) == ("closed" if may else "open")
    assert AuditEntry.objects.filter(action="reset_breaker").count() == (2 if may else 0)


def test_breakers_are_reset_over_rest(
    admin_client: Client, served: tuple[Provider, str], point_redis_at: PointRedisAt
) -> None:
    provider, model = served
    url = f"/ops/api/breakers/{provider.name}/reset/"
    step(provider, model, "fail", times=3)
    (found,) = post(admin_client, url, reason="repaired").json()
    assert (found["model"], found["state"]) == (model, "closed")
    entry = AuditEntry.objects.get(action="reset_breaker")
    assert (entry.reason, entry.after) == ("repaired", {"models": [model]})
    refusal(post(admin_client, url, model="none"), 400, "validation_error", "model")
    refusal(post(admin_client, url, which="all"), 400, "validation_error", "which")
    refusal(post(admin_client, "/ops/api/breakers/none/reset/"), 404, "not_found")
    point_redis_at(NOBODY_LISTENS)
    refusal(post(admin_client, url, model=model), 503, "service_unavailable")
    assert AuditEntry.objects.filter(action="reset_breaker").count() == 1
