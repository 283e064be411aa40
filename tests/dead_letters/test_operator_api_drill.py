"""The outage drill over HTTP with a token: find the group, plan, start, watch the canary, read the report."""

from typing import Any

import pytest
from django.test import Client

from apps.access import operator_tokens
from apps.access.models import AuditEntry
from apps.dead_letters import tallies
from apps.dead_letters.models import BulkOperation, DeadLetter
from apps.providers.errors import UpstreamUnreachable
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_bulk import end, tick
from tests.dead_letters.test_triage import broken, person
from tests.operators import post
from tests.tasks.conftest import MakeKind

pytestmark = pytest.mark.django_db


def test_an_outage_is_repaired_by_a_script_with_an_operators_token(
    make_letter: MakeLetter, make_kind: MakeKind, django_user_model: Any
) -> None:
    kind, outage = make_kind(), UpstreamUnreachable("The provider answered 503.")
    letters = [make_letter(kind=kind, error=outage) for _ in range(40)]
    tallies.fold()
    operator = person(
        django_user_model, "view_failuregroup", "view_deadletter", "view_bulkoperation", "redrive_bulkoperation",
        "view_auditentry",
    )  # fmt: skip
    _, secret = operator_tokens.create(user=operator)
    script = Client(enforce_csrf_checks=True, headers={"Authorization": f"Token {secret}"})

    (group,) = script.get("/ops/api/groups/", {"q": f'kind:{kind.name} age:<1h "answered 503"'}).json()["results"]
    assert group["open_count"] == 40
    planned = post(script, "/ops/api/bulk/", action="redrive", groups=[group["fingerprint"]])
    url = planned["Location"]
    operation = BulkOperation.objects.get(pk=planned.json()["id"])
    assert planned.json()["state"] == "counting"

    tick(operation)
    assert script.get(url).json()["pending"] == 40
    started = post(script, f"{url}start/", reason="acme is back", rate=10).json()
    assert (started["state"], started["canary"], started["started_by"]) == ("holding", 3, operator.username)
    tick(operation, seconds=11)
    assert script.get(url).json()["in_flight"] == 3
    end(letters)
    tick(operation)
    post(script, f"{url}pace/", rate=1000)
    tick(operation, seconds=5)
    end(letters, dead=2)
    tick(operation)

    done = script.get(url).json()
    assert (done["state"], done["succeeded"], done["failed"]) == ("done", 38, 2)
    (again,) = done["report"]["failed_again"]
    assert (done["report"]["percent"], again["letters"]) == (100, 2)
    dead = script.get(f"{url}items/").json()["results"]
    assert sorted({item["outcome"] for item in dead}) == ["dead", "succeeded"]
    tallies.fold()
    assert script.get(f"/ops/api/groups/{group['fingerprint']}/").json()["succeeded_count"] == 38
    assert DeadLetter.objects.filter(operation_id=operation.pk, state="redriven").count() == 40
    entries = script.get("/ops/api/audit/", {"action": "redrive", "actor": operator.username, "limit": 100}).json()
    assert len(entries["results"]) == 40
    assert AuditEntry.objects.get(action="start").actor == operator.username
    assert broken() == []
