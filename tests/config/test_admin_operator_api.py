"""The operators' REST API beside the admin: the same rows, the same permissions, the one error body."""

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from apps.completions.models import LedgerEntry
from apps.providers.models import Upstream
from tests.conftest import MakeKey, MakeRoute

pytestmark = pytest.mark.django_db
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "groups": ("fingerprint", ("assign", "note", "snooze", "resolve", "reopen", "hold", "release")),
    "letters": ("id", ("redrive", "discard", "restore", "draft", "edit", "review")),
    "bulk": ("id", ("items", "start", "undo", "pause", "resume", "pace", "cancel")),
    "alerts": ("id", ("acknowledge",)),
    "audit": ("id", ()),
    "ledger": ("id", ()),
    "tasks": ("id", ("cancel", "reveal")),
    "queues": ("name", ("pause", "resume")),
    "breakers": ("provider", ("reset",)),
}
LOOKED_UP = set(ROWS) - {"queues", "breakers"}
BOARDS = (*ROWS, "workers", "clock")


@pytest.fixture
def rows(make_key: MakeKey) -> list[LedgerEntry]:
    key, _ = make_key()
    now = timezone.now()
    return LedgerEntry.objects.bulk_create(
        LedgerEntry(
            created_at=now, request_id=f"r{number}", project_id=key.project_id, api_key_id=key.pk,
            operation="chat/completions", model="m", provider="p", upstream_model="u", attempt=1, stream=False,
            outcome="failed" if number == 0 else "succeeded", input_tokens=1, cached_tokens=0, output_tokens=1,
            cost_nusd=2_000_000, estimated=False, latency_ms=1, elapsed_ms=1,
        )
        for number in range(7)
    )  # fmt: skip


def test_the_ledger_is_paged_by_cursor_without_a_count(admin_client: Client, rows: list[LedgerEntry]) -> None:
    found: list[str] = []
    url = "/ops/api/ledger/?limit=3"
    with CaptureQueriesContext(connection) as queries:
        while url:
            page = admin_client.get(url).json()
            found += [row["request_id"] for row in page["results"]]
            url = page["next"]
    assert sorted(found) == sorted(row.request_id for row in rows)
    assert not any("COUNT(" in query["sql"] for query in queries)


def test_the_ledger_is_filtered_and_shows_us_dollars(admin_client: Client, rows: list[LedgerEntry]) -> None:
    (row,) = admin_client.get("/ops/api/ledger/", {"outcome": "failed"}).json()["results"]
    assert (row["request_id"], row["cost_usd"]) == ("r0", 0.002)
    assert admin_client.get(f"/ops/api/ledger/{row['id']}/").json() == row
    assert admin_client.get("/ops/api/ledger/", {"project": str(uuid4())}).json()["results"] == []


def test_the_browsable_page_shows_rows_as_text(admin_client: Client, rows: list[LedgerEntry]) -> None:
    LedgerEntry.objects.filter(pk=rows[0].pk).update(end_user="<script>alert(1)</script>")
    html = admin_client.get("/ops/api/ledger/", headers={"Accept": "text/html"}).content.decode()
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    assert "style=" not in html


def test_the_breakers_are_listed(admin_client: Client, make_route: MakeRoute) -> None:
    name = make_route()
    upstream = Upstream.objects.select_related("provider").get(route__public_name=name)
    (breaker,) = admin_client.get("/ops/api/breakers/").json()
    assert breaker == {
        "provider": upstream.provider.name, "model": upstream.model, "routes": [name], "state": "closed",
        "wait": 0.0, "failures": 0,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/ops/api/ledger/", "/ops/api/breakers/"])
def test_rows_need_the_permission_to_view_them(client: Client, django_user_model: Any, path: str) -> None:
    assert client.get(path).status_code == 401
    person = django_user_model.objects.create_user("person", is_staff=True)
    client.force_login(person)
    error = client.get(path).json()["error"]
    assert (error["code"], error["type"]) == ("permission_denied", "permission_error")
    codename = "view_ledgerentry" if "ledger" in path else "view_provider"
    person.user_permissions.add(Permission.objects.get(codename=codename))
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("post", "/ops/api/ledger/", 405, "method_not_allowed"),
        ("delete", "/ops/api/breakers/", 405, "method_not_allowed"),
        ("get", "/ops/api/ledger/0197f000-0000-7000-8000-000000000000/", 404, "not_found"),
        ("get", "/ops/api/ledger/no-uuid/", 404, "not_found"),
        ("get", "/ops/api/ledger/?project=no-uuid", 400, "validation_error"),
        ("get", "/ops/api/ledger/?cursor=nonsense", 404, "not_found"),
        ("get", "/ops/api/nothing/", 404, "not_found"),
    ],
)
def test_every_refusal_is_the_one_body(admin_client: Client, method: str, path: str, status: int, code: str) -> None:
    response = getattr(admin_client, method)(path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error.keys() == {"message", "type", "param", "code", "request_id", "details"}


def test_the_schema_describes_the_operators_api_alone(admin_client: Client, client: Client) -> None:
    schema = admin_client.get("/ops/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"}).json()
    expected = {f"/ops/api/{name}/" for name in BOARDS}
    expected |= {f"/ops/api/{name}/{{{key}}}/" for name, (key, _) in ROWS.items() if name in LOOKED_UP}
    expected |= {f"/ops/api/{name}/{{{key}}}/{one}/" for name, (key, actions) in ROWS.items() for one in actions}
    assert set(schema["paths"]) == expected
    assert Client().get("/ops/api/schema/").status_code == 401


def test_the_schema_is_valid_complete_and_explains_itself(admin_client: Client, capsys: Any) -> None:
    GENERATOR_STATS.reset()
    schema = SchemaGenerator(urlconf="config.urls").get_schema(public=True)
    validate_schema(schema)
    assert not GENERATOR_STATS, capsys.readouterr().err
    operations = [(path, verb, one) for path, verbs in schema["paths"].items() for verb, one in verbs.items()]
    assert len(operations) > 40
    for path, verb, one in operations:
        if path.startswith("/ops/api/") and "schema" not in path:
            assert one["description"].endswith("."), (verb, path)
    assert "operatorToken" in schema["components"]["securitySchemes"]
    described = schema["components"]["schemas"]
    undescribed = [name for name, one in described.items() if one.get("type") == "object" and "description" not in one]
    assert [name for name in undescribed if not name.startswith("Paginated")] == []


@pytest.mark.parametrize("method", ["get", "head", "options"])
@pytest.mark.parametrize("path", ["/ops/api/ledger/", "/ops/api/breakers/"])
def test_no_method_tells_those_anything_who_may_not_look(
    client: Client, django_user_model: Any, method: str, path: str
) -> None:
    client.force_login(django_user_model.objects.create_user("nobody", is_staff=True))
    assert getattr(client, method)(path).status_code == 403


@pytest.mark.parametrize(
    ("query", "status"),
    [("cursor=cj0xJnA9eA==", 404), ("since=0001-01-01T00:00:00%2B23:59", 400), ("model=%00", 400)],
)
def test_a_query_that_cannot_be_right_is_refused(client: Client, admin_user: Any, query: str, status: int) -> None:
    client.raise_request_exception = False
    client.force_login(admin_user)
    reply = client.get(f"/ops/api/ledger/?{query}")
    assert reply.status_code == status
    assert set(reply.json()["error"]) >= {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", BOARDS)
def test_a_suffix_of_a_format_is_no_address(admin_client: Client, path: str) -> None:
    assert admin_client.get(f"/ops/api/{path}/").status_code == 200
    assert admin_client.get(f"/ops/api/{path}.json").status_code == 404
