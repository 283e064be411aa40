"""The admin of the ledger and of stored texts, and the numbers of the operators' home."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.access.models import ApiKey, AuditEntry, Project
from apps.completions import statistics
from apps.completions.models import LedgerEntry, StoredBody
from tests.conftest import MakeKey

pytestmark = pytest.mark.django_db
LEDGER = "admin:completions_ledgerentry_changelist"


@pytest.fixture
def key(make_key: MakeKey) -> ApiKey:
    return make_key()[0]


def entry(key: ApiKey, **fields: Any) -> LedgerEntry:
    values: dict[str, Any] = {
        "created_at": timezone.now(), "request_id": f"req_{uuid4().hex}", "project_id": key.project_id,
        "api_key_id": key.pk, "operation": "chat/completions", "model": "m", "provider": "p", "upstream_model": "u",
        "attempt": 1, "stream": False, "outcome": "succeeded", "status": 200, "input_tokens": 10, "cached_tokens": 0,
        "output_tokens": 5, "cost_nusd": 2_000_000, "estimated": False, "latency_ms": 100, "elapsed_ms": 100,
    }  # fmt: skip
    return LedgerEntry(**{**values, **fields})


def ids_on(response: Any) -> list[str]:
    return [row.request_id for row in response.context["cl"].result_list]


def test_pages_of_the_ledger_hold_every_row_once_in_both_directions(admin_client: Client, key: ApiKey) -> None:
    # Groups of rows share their time, so that the id has to decide.
    start = timezone.now() - timedelta(hours=1)
    LedgerEntry.objects.bulk_create(
        entry(key, created_at=start + timedelta(seconds=number // 7), request_id=f"r{number}") for number in range(120)
    )
    expected = list(LedgerEntry.objects.order_by("-created_at", "-id").values_list("request_id", flat=True))
    pages, url = [], reverse(LEDGER)
    response = admin_client.get(url)
    while True:
        pages.append(ids_on(response))
        if not response.context["cl"].older_url:
            break
        response = admin_client.get(url + response.context["cl"].older_url)
    assert [len(page) for page in pages] == [50, 50, 20]
    assert [row for page in pages for row in page] == expected
    back = []
    while response.context["cl"].newer_url:
        response = admin_client.get(url + response.context["cl"].newer_url)
        back.append(ids_on(response))
    assert back == pages[-2::-1]


def test_a_list_of_the_ledger_counts_nothing_and_reads_one_page(admin_client: Client, key: ApiKey) -> None:
    LedgerEntry.objects.bulk_create(entry(key) for _ in range(60))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        admin_client.get(reverse(LEDGER))
    of_ledger = [query["sql"] for query in queries if "completions_ledgerentry" in query["sql"]]
    assert len(of_ledger) == 1
    assert "LIMIT 51" in of_ledger[0]
    assert not any("COUNT(" in query["sql"] for query in queries)


@pytest.mark.parametrize("cursor", ["nonsense", "2026-01-01_no-uuid", "_0197f000-0000-7000-8000-000000000000", "%00"])
def test_a_page_that_is_none_leads_back_to_the_list(admin_client: Client, cursor: str) -> None:
    response = admin_client.get(reverse(LEDGER), {"older": cursor}, follow=True)
    assert response.status_code == 200


def test_the_ledger_is_filtered_by_project_model_provider_outcome_and_day(admin_client: Client, key: ApiKey) -> None:
    from apps.providers.models import ModelRoute, Provider

    ModelRoute.objects.create(public_name="m")
    Provider.objects.create(name="p", base_url="http://localhost/v1")
    yesterday = datetime.now(UTC).replace(hour=23, minute=59) - timedelta(days=1)
    LedgerEntry.objects.bulk_create(
        [
            entry(key, request_id="mine"),
            entry(key, request_id="failed", outcome="failed"),
            entry(key, request_id="old", created_at=yesterday),
            entry(key, request_id="other", model="n", provider="q", project_id=uuid4()),
        ]
    )

    def found(**filters: str) -> set[str]:
        return set(ids_on(admin_client.get(reverse(LEDGER), filters)))

    assert found(project__id__exact=str(key.project_id)) == {"mine", "failed", "old"}
    assert found(model="m") == {"mine", "failed", "old"}
    assert found(provider="p") == {"mine", "failed", "old"}
    assert found(outcome__exact="failed") == {"failed"}
    day = f"{yesterday:%Y-%m-%d}"
    assert found(created_at_from=day, created_at_to=day) == {"old"}
    assert found(q="other") == {"other"}
    assert found(q="othe") == set()


def test_a_row_whose_project_is_gone_is_still_shown(admin_client: Client, key: ApiKey) -> None:
    gone = uuid4()
    row = entry(key, project_id=gone)
    row.save()
    assert str(gone) in admin_client.get(reverse(LEDGER)).content.decode()
    assert (
        str(gone) in admin_client.get(reverse("admin:completions_ledgerentry_change", args=[row.pk])).content.decode()
    )


def test_the_ledger_shows_us_dollars_and_takes_no_change(admin_client: Client, key: ApiKey) -> None:
    row = entry(key)
    row.save()
    assert "$0.002000" in admin_client.get(reverse(LEDGER)).content.decode()
    for name in ("change", "delete"):
        url = reverse(f"admin:completions_ledgerentry_{name}", args=[row.pk])
        assert admin_client.post(url, {"post": "yes", "cost_nusd": "0"}).status_code == 403
    assert admin_client.post(reverse("admin:completions_ledgerentry_add"), {}).status_code == 403


def test_a_stored_text_is_shown_on_post_only_and_the_look_is_audited(admin_client: Client, key: ApiKey) -> None:
    now = timezone.now()
    body = StoredBody.objects.create(
        request_id="req_1", project_id=key.project_id, created_at=now, expires_at=now + timedelta(days=1),
        request='{"text": "<script>secret words \\ud800</script>"}', response="not json",
    )  # fmt: skip
    url = reverse("admin:completions_storedbody_reveal", args=[body.pk])
    for seen in (reverse("admin:completions_storedbody_change", args=[body.pk]), url):
        assert b"secret words" not in admin_client.get(seen).content
    assert not AuditEntry.objects.filter(action="view").exists()
    response = admin_client.post(url, {"reason": "ticket 7"})
    assert b"&lt;script&gt;secret words" in response.content
    assert "no-store" in response["Cache-Control"]
    assert AuditEntry.objects.get(action="view").reason == "ticket 7"


def test_the_numbers_are_those_of_the_last_day(key: ApiKey) -> None:
    now = timezone.now()
    LedgerEntry.objects.bulk_create(
        [
            *(entry(key, created_at=now, latency_ms=latency) for latency in range(10, 1010, 10)),
            entry(key, created_at=now, outcome="failed", cost_nusd=0, latency_ms=99_999, upstream_model="v"),
            entry(key, created_at=now, outcome="cancelled", cost_nusd=0),
            entry(key, created_at=now - timedelta(hours=12), input_tokens=1000),
            entry(key, created_at=now - timedelta(hours=25), cost_nusd=10**12),
        ]
    )
    day = statistics.read()
    total = day.total
    assert (total.requests, total.failed) == (103, 1)
    assert (total.input_tokens, total.output_tokens) == (2020, 515)
    assert total.usd == pytest.approx(0.202)
    assert (total.p50, total.p95) == (500, 950)
    assert len(day.buckets) == statistics.BUCKETS
    assert sum(bucket.requests for bucket in day.buckets) == 103
    assert day.places["p", "v"].failed == 1
    assert day.last_failure == now


def test_an_empty_ledger_has_numbers_too(db: None) -> None:
    day = statistics.read()
    assert (day.total.requests, day.total.error_rate, day.total.p95, day.last_failure) == (0, 0.0, None, None)


def test_project_names_are_not_read_row_by_row(admin_client: Client, key: ApiKey) -> None:
    projects = [Project.objects.create(name=f"p{number}") for number in range(20)]
    LedgerEntry.objects.bulk_create(entry(key, project_id=project.pk) for project in projects)
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(reverse(LEDGER))
    assert len(queries) <= 12
