"""The admin of providers and routes: secrets stay secret, tests are real requests, breakers can be reset."""

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.core.crypto import UndecipherableError
from apps.providers import breaker_board, circuit_breaker, stored_secrets
from apps.providers.models import ModelRoute, Provider, Upstream
from tests.conftest import MakeRoute
from tests.stores import NOBODY_LISTENS, PointRedisAt
from tests.upstream import Upstream as Scripted
from tests.upstream import ok, status

pytestmark = pytest.mark.django_db(transaction=False)
SECRET = "sk-upstream-secret"


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:providers_{name}", args=args)


def form_of(provider: Provider, **changed: Any) -> dict[str, Any]:
    names = (
        "name", "kind", "base_url", "connect_timeout", "first_token_timeout", "idle_timeout", "total_timeout",
        "max_concurrency", "breaker_failures", "breaker_window", "breaker_reset",
    )  # fmt: skip
    return {**{name: getattr(provider, name) for name in names}, "enabled": "on", **changed}


@pytest.fixture
def served(make_route: MakeRoute) -> tuple[Provider, str]:
    """A provider with a key, and the model that a route uses there."""
    upstream = Upstream.objects.select_related("provider").get(route__public_name=make_route())
    return upstream.provider, upstream.model


def step(provider: Provider, model: str, name: str, times: int = 1) -> None:
    for _ in range(times):
        circuit_breaker._by_client(breaker_board._upstream(provider, model), name)


def state(provider: Provider) -> str:
    provider.refresh_from_db()
    return breaker_board.load(provider=provider)[0].state


def test_the_stored_secrets_are_on_no_page(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, _ = served
    Provider.objects.filter(pk=provider.pk).update(headers="X-Team: hidden-header-value")
    pages = ("change", "history", "test", "reset_breaker", "delete")
    urls = [page("provider_changelist"), *(page(f"provider_{name}", provider.pk) for name in pages)]
    for url in urls:
        response = admin_client.get(url)
        assert response.status_code == 200, url
        assert SECRET.encode() not in response.content, url
        assert b"hidden-header-value" not in response.content, url


def test_a_refused_form_does_not_send_a_typed_secret_back(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, _ = served
    posted = form_of(provider, base_url="nonsense", new_api_key="sk-typed-now", new_headers="X-Typed: too")
    response = admin_client.post(page("provider_change", provider.pk), posted)
    assert response.status_code == 200
    assert b"sk-typed-now" not in response.content
    assert b"X-Typed: too" not in response.content


def test_an_empty_secret_keeps_the_stored_one(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, _ = served
    assert (
        admin_client.post(page("provider_change", provider.pk), form_of(provider, max_concurrency=5)).status_code == 302
    )
    provider.refresh_from_db()
    assert (provider.api_key, provider.max_concurrency) == (SECRET, 5)
    entry = AuditEntry.objects.get(object_id=str(provider.pk))
    assert (entry.before, entry.after) == ({"max_concurrency": 1000}, {"max_concurrency": 5})


def test_a_new_secret_replaces_the_stored_one_and_the_audit_says_only_that(
    admin_client: Client, served: tuple[Provider, str]
) -> None:
    provider, _ = served
    admin_client.post(page("provider_change", provider.pk), form_of(provider, new_api_key="sk-new"))
    provider.refresh_from_db()
    assert provider.api_key == "sk-new"
    assert AuditEntry.objects.get(object_id=str(provider.pk)).after == {"api_key": "(replaced)"}


def test_a_secret_can_be_removed(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, _ = served
    admin_client.post(page("provider_change", provider.pk), form_of(provider, remove_api_key="on"))
    provider.refresh_from_db()
    assert provider.api_key == ""


def test_a_new_provider_is_stored_with_its_secret(admin_client: Client) -> None:
    posted = form_of(Provider(name="fresh", base_url="https://api.example.com/v1"), new_api_key="sk-fresh")
    assert admin_client.post(page("provider_add"), posted).status_code == 302
    assert Provider.objects.get(name="fresh").api_key == "sk-fresh"
    assert "sk-fresh" not in str(AuditEntry.objects.get(action="create").after)


def test_a_provider_whose_secret_cannot_be_deciphered_can_be_mended(
    admin_client: Client, served: tuple[Provider, str]
) -> None:
    from django.db import connection

    provider, _ = served
    with connection.cursor() as cursor:
        cursor.execute("UPDATE providers_provider SET api_key = 'of another ring' WHERE id = %s", [provider.pk])
    assert admin_client.get(page("provider_changelist")).status_code == 200
    assert admin_client.get(page("provider_change", provider.pk)).status_code == 200
    tested = admin_client.post(page("provider_test", provider.pk), {}).content.decode()
    assert "Enter it again" in tested
    assert (
        admin_client.post(page("provider_change", provider.pk), form_of(provider, new_api_key="sk-2")).status_code
        == 302
    )
    assert Provider.objects.get(pk=provider.pk).api_key == "sk-2"


def test_a_provider_that_serves_routes_says_why_it_cannot_be_deleted(
    admin_client: Client, served: tuple[Provider, str]
) -> None:
    provider, _ = served
    html = admin_client.get(page("provider_delete", provider.pk)).content.decode()
    route = ModelRoute.objects.get(upstreams__provider=provider)
    assert "cannot be deleted" in html
    assert page("modelroute_change", route.pk) in html
    admin_client.post(page("provider_delete", provider.pk), {"post": "yes"})
    assert Provider.objects.filter(pk=provider.pk).exists()


def test_testing_lists_the_models_and_warns_of_those_it_lacks(
    admin_client: Client, served: tuple[Provider, str]
) -> None:
    provider, model = served
    html = admin_client.post(page("provider_test", provider.pk), {"model": "", "reason": "new key"}).content.decode()
    assert "It works" in html
    assert "GET /v1/models" in html
    assert f"does not list: {model}" in html
    assert AuditEntry.objects.get(action="test").reason == "new key"


def test_a_chat_test_sends_one_token_with_our_credentials(
    admin_client: Client, served: tuple[Provider, str], upstream: Scripted
) -> None:
    provider, model = served
    upstream.script(model, ok("hi"))
    html = admin_client.post(page("provider_test", provider.pk), {"model": model}).content.decode()
    assert f"{model} answered a chat request." in html
    (request,) = upstream.requests(model)
    assert request.body["max_tokens"] == 1
    assert request.headers["Authorization"] == f"Bearer {SECRET}"


def test_refused_credentials_are_said_in_words_without_the_secret(
    admin_client: Client, served: tuple[Provider, str], upstream: Scripted
) -> None:
    provider, model = served
    upstream.script(model, status(401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}))
    html = admin_client.post(page("provider_test", provider.pk), {"model": model}).content.decode()
    assert "refused our credentials (401)" in html
    assert SECRET not in html


def test_a_provider_that_is_away_is_said_in_words(admin_client: Client) -> None:
    away = Provider.objects.create(name="away", base_url="http://127.0.0.1:1/v1")
    html = admin_client.post(page("provider_test", away.pk), {}).content.decode()
    assert "Nothing listens at 127.0.0.1:1." in html


def test_a_test_that_succeeds_lifts_a_block_and_one_that_fails_does_not(
    admin_client: Client, served: tuple[Provider, str], upstream: Scripted
) -> None:
    provider, model = served
    step(provider, model, "block")
    upstream.script(model, status(401), ok("hi"))
    admin_client.post(page("provider_test", provider.pk), {"model": model})
    assert state(provider) == "blocked"
    html = admin_client.post(page("provider_test", provider.pk), {"model": model}).content.decode()
    assert f"Calls go there again: {model}" in html
    assert state(provider) == "closed"


def test_a_list_of_models_proves_nothing_of_an_open_breaker(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, model = served
    step(provider, model, "fail", times=3)
    admin_client.post(page("provider_test", provider.pk), {"model": ""})
    assert state(provider) == "open"


def test_a_breaker_is_reset_by_post_only(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, model = served
    step(provider, model, "fail", times=3)
    assert b"open" in admin_client.get(page("provider_change", provider.pk)).content
    admin_client.get(page("provider_reset_breaker", provider.pk), {"model": model})
    assert state(provider) == "open"
    response = admin_client.post(page("provider_reset_breaker", provider.pk), {"model": model, "back": "home"})
    assert response["Location"] == reverse("admin:index")
    assert state(provider) == "closed"
    assert AuditEntry.objects.get(action="reset_breaker").after == {"models": [model]}


def test_a_reset_while_redis_is_away_changes_nothing_and_says_so(
    admin_client: Client, served: tuple[Provider, str], point_redis_at: PointRedisAt
) -> None:
    provider, _ = served
    point_redis_at(NOBODY_LISTENS)
    response = admin_client.post(page("provider_reset_breaker", provider.pk), {"model": ""}, follow=True)
    assert "Redis does not answer" in response.content.decode()
    assert not AuditEntry.objects.filter(action="reset_breaker").exists()


def test_a_viewer_may_neither_test_nor_reset(
    client: Client, django_user_model: Any, served: tuple[Provider, str]
) -> None:
    from django.contrib.auth.models import Permission

    provider, _ = served
    viewer = django_user_model.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_provider"))
    client.force_login(viewer)
    html = client.get(page("provider_change", provider.pk)).content.decode()
    assert provider.base_url in html
    assert "new_api_key" not in html
    for action in ("test", "reset_breaker"):
        assert client.post(page(f"provider_{action}", provider.pk), {}).status_code == 403


def test_a_routes_upstreams_are_changed_on_its_page_and_audited(
    admin_client: Client, served: tuple[Provider, str]
) -> None:
    provider, model = served
    name = f"m-{uuid4().hex[:12]}"
    posted = {
        "public_name": name, "enabled": "on", "default_params": "{}", "context_window": "1000",
        "max_output_tokens": "100", "unknown_fields": "refuse", "upstreams-TOTAL_FORMS": "1",
        "upstreams-INITIAL_FORMS": "0", "upstreams-0-position": "1", "upstreams-0-provider": str(provider.pk),
        "upstreams-0-model": model, "upstreams-0-weight": "1",
    }  # fmt: skip
    response = admin_client.post(page("modelroute_add"), posted)
    assert response.status_code == 302, response.context["errors"]
    assert ModelRoute.objects.get(public_name=name).upstreams.get().model == model
    assert AuditEntry.objects.get(action="create").after["upstreams"][0]["model"] == model


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "https://evil.example/v1"])
def test_a_new_address_does_not_get_the_stored_secrets(
    admin_client: Client, served: tuple[Provider, str], address: str
) -> None:
    provider, _ = served
    url, before = page("provider_change", provider.pk), provider.base_url
    response = admin_client.post(url, form_of(provider, base_url=address))
    assert response.status_code == 200
    assert b"Enter what the new address needs" in response.content
    provider.refresh_from_db()
    assert provider.base_url == before
    assert admin_client.post(url, form_of(provider, base_url=address, new_api_key="sk-new")).status_code == 302


def test_another_path_at_the_same_address_keeps_the_secret(admin_client: Client, served: tuple[Provider, str]) -> None:
    provider, _ = served
    url = page("provider_change", provider.pk)
    assert admin_client.post(url, form_of(provider, base_url=f"{provider.base_url}/v2")).status_code == 302
    provider.refresh_from_db()
    assert provider.api_key == SECRET


def test_a_gateway_that_can_read_no_stored_secret_is_not_ready(served: tuple[Provider, str]) -> None:
    provider, _ = served
    stored_secrets._open_one()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE providers_provider SET api_key = 'nonsense' WHERE id = %s", [provider.pk])
        cursor.execute("UPDATE providers_provider SET api_key = '' WHERE id <> %s", [provider.pk])
    with pytest.raises(UndecipherableError):
        stored_secrets._open_one()
