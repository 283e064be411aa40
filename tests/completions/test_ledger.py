"""The ledger: rows by COPY, spend by UTC month, and one bad row alone."""

import asyncio
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from apps.access.models import Project
from apps.completions import ledger, retention
from apps.completions.ledger import Body, Entry
from apps.completions.models import LedgerEntry, StoredBody
from apps.core import errors, ids, request_context
from apps.core.database import LOST_CONNECTION, Batch, in_db
from apps.core.request_context import RequestContext
from apps.providers.contract import RouteConfig, Usage
from tests.completions.conftest import UPSTREAM, a_purpose, an_attempt
from tests.races import together
from tests.time import age


def an_entry(**fields: Any) -> Entry:
    """A row with these columns."""
    row: dict[str, Any] = {
        "id": ids.new_uuid(),
        "created_at": datetime.now(UTC),
        "request_id": "req_1",
        "project_id": uuid4(),
        "api_key_id": uuid4(),
        "end_user": "",
        "operation": "chat/completions",
        "model": "m",
        "provider": "p",
        "upstream_model": "u",
        "upstream_request_id": "",
        "attempt": 1,
        "stream": False,
        "outcome": "succeeded",
        "status": 200,
        "error_code": "",
        "input_tokens": 1,
        "cached_tokens": 0,
        "output_tokens": 2,
        "cost_nusd": 3,
        "estimated": False,
        "latency_ms": 4,
        "ttft_ms": None,
        "elapsed_ms": 5,
        **fields,
    }
    return Entry(**row)


def a_body(**fields: Any) -> Body:
    """A stored text with these columns."""
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        "id": ids.new_uuid(),
        "request_id": "req_1",
        "project_id": uuid4(),
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        "request": "{}",
        "response": "{}",
        **fields,
    }
    return Body(**row)


@pytest.fixture(autouse=True)
def _an_empty_ledger(db: None) -> None:
    """Rows that earlier tests of this process booked are written late, by the ledger's own thread."""
    ledger.batch().flush(5)
    LedgerEntry.objects.all().delete()
    StoredBody.objects.all().delete()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"end_user": 'tab\t newline\n "quote" \\N \\. 日本 😀'},
        {"status": None, "ttft_ms": 0, "stream": True, "estimated": True},
        {"cost_nusd": 2**62, "input_tokens": 2**31 - 1, "attempt": 3},
        {"request_id": "x" * 128, "model": "m" * 128, "end_user": "u" * 256},
    ],
)
def test_a_row_comes_back_as_it_was_written(fields: dict[str, Any]) -> None:
    entry = an_entry(**fields)
    ledger.write([entry])
    assert LedgerEntry.objects.values(*Entry._fields).get() == entry._asdict()


@pytest.mark.django_db
def test_rows_and_texts_are_written_together() -> None:
    assert len(ledger.write([an_entry(), a_body(), an_entry()])) == 3
    assert (LedgerEntry.objects.count(), StoredBody.objects.count()) == (2, 1)
    assert list(ledger.write([])) == []


@pytest.mark.django_db
def test_the_columns_are_those_of_the_tables() -> None:
    for model, columns in ((LedgerEntry, Entry._fields), (StoredBody, Body._fields)):
        assert tuple(field.column for field in model._meta.concrete_fields) == columns or {
            field.column for field in model._meta.concrete_fields
        } == set(columns)


@pytest.mark.django_db(transaction=True)
async def test_a_poisoned_row_does_not_cost_its_neighbours(caplog: pytest.LogCaptureFixture) -> None:
    batch: Batch[Any, None] = Batch(ledger.write, name="test", linger=0.02)
    rows = [an_entry(request_id=f"r{number}") for number in range(40)]
    rows[17] = rows[17]._replace(end_user="a\x00b")
    rows[23] = rows[23]._replace(model="m" * 500)
    with caplog.at_level(logging.CRITICAL):
        answers = await asyncio.gather(*(batch.submit(row) for row in rows), return_exceptions=True)
    assert [number for number, answer in enumerate(answers) if answer is not None] == [17, 23]
    assert await in_db(LedgerEntry.objects.count) == 38


@pytest.mark.django_db(transaction=True)
def test_a_connection_lost_within_a_copy_counts_as_lost() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]

    def end(_: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])

    together(1, end)
    with pytest.raises(LOST_CONNECTION):
        ledger.write([an_entry()])
    connection.close()
    entry = an_entry()
    ledger.write([entry])
    assert LedgerEntry.objects.filter(pk=entry.id).exists()


@pytest.mark.django_db
def test_spend_is_the_sum_of_the_utc_month_of_one_key_or_project() -> None:
    project, key = uuid4(), uuid4()
    mine = {"project_id": project, "api_key_id": key}
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ledger.write(
        [
            an_entry(**mine, cost_nusd=5, created_at=first),
            an_entry(**mine, cost_nusd=7),
            an_entry(project_id=project, cost_nusd=100),
            an_entry(cost_nusd=1000),
            an_entry(**mine, cost_nusd=10_000, created_at=first - timedelta(microseconds=1)),
        ]
    )
    month = first.strftime("%Y-%m")
    assert ledger.spend_of_month("key", key) == (month, 12)
    assert ledger.spend_of_month("project", project) == (month, 112)
    assert ledger.spend_of_month("key", uuid4()) == (month, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_month_is_utcs_whatever_the_session_says(zone: str) -> None:
    key = uuid4()
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ledger.write([an_entry(api_key_id=key, created_at=first, cost_nusd=5)])
    ledger.write([an_entry(api_key_id=key, created_at=first - timedelta(hours=1), cost_nusd=100)])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL TIME ZONE '{zone}'")
        assert ledger.spend_of_month("key", key) == (first.strftime("%Y-%m"), 5)


@pytest.mark.django_db
def test_a_row_of_a_key_that_is_gone_is_written_all_the_same() -> None:
    project = Project.objects.create(name="gone")
    pk = project.pk
    project.delete()
    ledger.write([an_entry(project_id=pk)])
    assert LedgerEntry.objects.get().project_id == pk


class Kept(list[Any]):
    """Stands in for the batch: keeps what is appended."""


@pytest.fixture
def booked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is queued for the ledger."""
    kept = Kept()
    monkeypatch.setattr(ledger, "batch", lambda: kept)
    return kept


async def test_a_booked_request_says_what_it_used_and_cost(booked: list[Any]) -> None:
    request_context.enter(RequestContext("req_mine"))
    attempt = an_attempt(first_token=0.123, upstream_request_id="up\x00-1\n" + "x" * 300)
    cost = a_purpose(end_user="anna", stream=True).book(attempt, Usage(10, 2, 4))
    (entry,) = booked
    assert cost == entry.cost_nusd == 10 * 100 + 2 * 1000
    assert (entry.request_id, entry.end_user, entry.stream, entry.model) == ("req_mine", "anna", True, "public")
    assert (entry.provider, entry.upstream_model, entry.status) == ("test-provider", "gpt-4o-mini", 200)
    assert (entry.input_tokens, entry.cached_tokens, entry.output_tokens) == (10, 4, 2)
    assert (entry.latency_ms, entry.ttft_ms, entry.estimated) == (500, 123, False)
    assert entry.upstream_request_id == "up-1" + "x" * 196


@pytest.mark.parametrize(
    ("usage", "model", "estimated"),
    [
        (Usage(10, 2), "gpt-4o-mini", False),
        (Usage(10, 2, estimated=True), "gpt-4o-mini", True),
        (Usage(10, 2), "nobody-knows", True),
        (Usage(0, 0), "nobody-knows", False),
    ],
)
def test_a_guess_is_marked(booked: list[Any], usage: Usage, model: str, estimated: bool) -> None:
    upstream = replace(UPSTREAM, model=model)
    a_purpose(route=RouteConfig("public", (upstream,))).book(an_attempt(upstream=upstream), usage)
    assert booked[0].estimated is estimated


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["a\x00b", "\ud83d", "日本\t\\N\n", "\\."])
def test_stored_texts_hold_what_postgres_refuses(booked: list[Any], text: str) -> None:
    purpose = a_purpose(store_bodies=True, body_retention_days=3)
    purpose.store({"messages": [text]}, {"text": text})
    ledger.write(booked)
    body = StoredBody.objects.get()
    assert json.loads(body.request) == {"messages": [text]}
    assert json.loads(body.response) == {"text": text}
    assert body.expires_at - body.created_at == timedelta(days=3)


def test_texts_are_not_kept_unless_the_project_wants_it(booked: list[Any]) -> None:
    a_purpose(store_bodies=False).store({"messages": ["x"]}, {})
    assert booked == []


def test_a_full_backlog_refuses_what_would_spend(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def is_full(self) -> bool:
            return True

    monkeypatch.setattr(ledger, "batch", Full)
    with pytest.raises(errors.ServiceUnavailable) as raised:
        ledger.refuse_if_full()
    assert raised.value.retry_after == 5


@pytest.mark.django_db
def test_expired_texts_are_pruned_and_the_others_and_the_ledger_stay() -> None:
    ledger.write([a_body(), a_body(request_id="old"), an_entry()])
    age(StoredBody.objects.get(request_id="old"), days=2)
    out = StringIO()
    call_command("prune", stdout=out)
    assert "Deleted 1 stored" in out.getvalue()
    assert StoredBody.objects.get().request_id == "req_1"
    assert LedgerEntry.objects.count() == 1


@pytest.mark.django_db
def test_expired_texts_are_pruned_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 10)
    old = datetime.now(UTC) - timedelta(days=1)
    ledger.write([a_body(expires_at=old) for _ in range(25)])
    assert [retention.prune_bodies() for _ in range(4)] == [10, 10, 5, 0]
