"""Deliveries and notifications, which nobody asked for by name: people redrive and discard them, and write none."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.core.errors import Conflict
from apps.dead_letters import queries, triage
from apps.dead_letters.models import DeadLetter
from apps.tasks import kinds, payloads
from apps.tasks.models import TaskPayload
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import now
from tests.operators import post
from tests.tasks.conftest import AsPerson

pytestmark = pytest.mark.django_db
ARGS: dict[str, tuple[Any, Any]] = {
    "alert_notification": ({"channel_id": 1}, {"channel_id": 2, "test": "The bank has failed. Sell everything."}),
    "webhook_delivery": ({"event_id": "0197f000" + "0" * 24}, {"event_id": "0197f111" + "0" * 24}),
}


@pytest.fixture(params=list(ARGS))
def letter(make_letter: MakeLetter, request: Any) -> DeadLetter:
    """Of each of our kinds."""
    return make_letter(kind=kinds.find(request.param), args=ARGS[request.param][0])


def test_all_kinds_that_announce_nothing_are_tried_here() -> None:
    assert set(ARGS) <= set(kinds.silent())


def test_nobody_edits_what_a_delivery_or_a_notification_is_about(letter: DeadLetter) -> None:
    text = json.dumps(ARGS[letter.kind][1])
    for act in (
        lambda: triage.draft(letter.pk),
        lambda: triage.preview(letter.pk, text=text),
        lambda: triage.edit_and_redrive(letter.pk, text=text, revision=1, reason="r"),
        lambda: payloads.present(letter.task_id),
    ):
        with pytest.raises(Conflict, match="Redrive it as it is"):
            act()
    assert (now(letter)[0], TaskPayload.objects.filter(task_id=letter.task_id).count()) == ("open", 1)
    assert not AuditEntry.objects.exists()


def test_a_payload_editor_is_refused_over_http_and_is_not_offered_it(letter: DeadLetter, as_person: AsPerson) -> None:
    client: Client = as_person("view_deadletter", "edit_payload")
    body = {"payload": json.dumps(ARGS[letter.kind][1]), "revision": 1, "reason": "r"}
    assert post(client, f"/ops/api/letters/{queries.shown_id(letter.pk)}/edit/", **body).status_code == 409
    assert post(client, f"/ops/api/letters/{queries.shown_id(letter.pk)}/draft/").status_code == 409
    address = reverse("admin:dead_letters_deadletter_edit", args=[letter.pk])
    client.post(address, body)
    assert now(letter)[0] == "open"
    page = client.get(reverse("admin:dead_letters_deadletter_change", args=[letter.pk])).content.decode()
    assert address not in page


def test_they_are_redriven_as_they_are(letter: DeadLetter) -> None:
    triage.redrive(letter.pk)
    assert now(letter)[0] == "redriven"
