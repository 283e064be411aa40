"""`manage.py add_provider` and the verb behind it."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.access.models import AuditEntry
from apps.providers.models import ModelRoute, Provider, Upstream
from tests.races import together

pytestmark = pytest.mark.django_db
URL = "https://api.example.com/v1"


def add(*args: str, url: str = URL) -> str:
    """The command's stdout."""
    out = StringIO()
    call_command("add_provider", *args, "--base-url", url, stdout=out)
    return out.getvalue()


def upstreams(public_name: str) -> list[str]:
    """The route's upstreams in order."""
    rows = Upstream.objects.filter(route__public_name=public_name).order_by("position")
    return [str(row) for row in rows.select_related("provider")]


def test_a_provider_serves_its_models_under_their_own_names() -> None:
    out = add("openai", "--models", "gpt-4o, gpt-4o-mini,")
    assert "Added provider openai" in out
    assert upstreams("gpt-4o") == ["openai/gpt-4o"]
    assert ModelRoute.objects.count() == 2
    assert ModelRoute.objects.first().default_params == {"temperature": 0.7, "max_tokens": 1024}  # type: ignore[union-attr]


def test_a_model_may_have_another_public_name() -> None:
    add("local", "--models", "gpt-4o-mini=llama-3.2:1b")
    assert upstreams("gpt-4o-mini") == ["local/llama-3.2:1b"]


def test_a_second_provider_of_a_name_is_its_last_upstream() -> None:
    add("one", "--models", "m")
    add("two", "--models", "m=other")
    assert upstreams("m") == ["one/m", "two/other"]


def test_the_same_again_changes_nothing() -> None:
    add("one", "--models", "m")
    out = add("one", "--models", "m")
    assert "Updated provider one" in out
    assert upstreams("m") == ["one/m"]
    assert Provider.objects.count() == ModelRoute.objects.count() == 1


def test_the_same_name_again_updates_the_provider() -> None:
    add("one", url="http://old/v1")
    add("one", url="http://new/v1")
    assert Provider.objects.get().base_url == "http://new/v1"


def test_an_update_without_a_key_keeps_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-one")
    add("one", "--api-key-env", "UPSTREAM_KEY")
    add("one")
    assert Provider.objects.get().api_key == "sk-one"


def test_the_key_is_neither_printed_nor_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-very-secret")
    out = add("one", "--api-key-env", "UPSTREAM_KEY", "--models", "m")
    assert "sk-very-secret" not in out
    assert all("sk-very-secret" not in f"{entry.before}{entry.after}" for entry in AuditEntry.objects.all())


def test_keep_routes_leaves_routes_alone_once_the_provider_exists() -> None:
    add("one", "--models", "m", "--keep-routes")
    assert upstreams("m") == ["one/m"]
    ModelRoute.objects.all().delete()
    add("one", "--models", "m", "--keep-routes")
    assert not ModelRoute.objects.exists()


@pytest.mark.parametrize(
    ("args", "url", "named"),
    [
        (("one",), "ftp://x/v1", "base_url"),
        (("one",), "x", "base_url"),
        (("one",), "http://", "base_url"),
        (("one",), "http://user:pw@host/v1", "base_url"),
        (("one",), "http://host/v1?key=1", "base_url"),
        (("one",), "http://host:99999/v1", "base_url"),
        (("one",), "http://[::1", "base_url"),
        (("One Two",), URL, "name"),
        (("n" * 65,), URL, "name"),
        (("one", "--models", "a b"), URL, "public_name"),
        (("one", "--models", "a=b c"), URL, "model"),
        (("one", "--models", "a="), URL, "model"),
        (("one", "--models", "=b"), URL, "public_name"),
        (("one", "--models", "m" * 129), URL, "public_name"),
        (("one", "--api-key-env", "NOT_SET_ANYWHERE"), URL, "NOT_SET_ANYWHERE"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(args: tuple[str, ...], url: str, named: str) -> None:
    with pytest.raises(CommandError, match=named):
        add(*args, url=url)
    assert not Provider.objects.exists()
    assert not ModelRoute.objects.exists()


def test_one_bad_model_undoes_the_good_ones() -> None:
    with pytest.raises(CommandError):
        add("one", "--models", "good,b d")
    assert not Provider.objects.exists()


def test_what_it_did_is_audited() -> None:
    add("one")
    add("one", url="http://new/v1")
    entries = AuditEntry.objects.filter(object_type="providers.provider").order_by("at")
    assert [entry.action for entry in entries] == ["create", "update"]
    assert entries[1].after == {"base_url": "http://new/v1"}


@pytest.mark.django_db(transaction=True)
def test_eight_commands_at_once_add_one_provider() -> None:
    answers = together(8, lambda _: add("one", "--models", "m"))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert upstreams("m") == ["one/m"]
