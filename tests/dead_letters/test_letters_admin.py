"""The pages of dead letters: who sees what, who may decide, and that only a POST does."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest
from apps.dead_letters import triage
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks.models import Task, TaskAttempt
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter
from tests.tasks.conftest import AsPerson

pytestmark = pytest.mark.django_db
LIST = reverse("admin:dead_letters_deadletter_changelist")


def page(letter: DeadLetter, action: str = "change") -> str:
    return reverse(f"admin:dead_letters_deadletter_{action}", args=[letter.pk])


def ids_on(response: Any) -> list[Any]:
    return [row.pk for row in response.context["cl"].result_list]


def state_of(letter: DeadLetter) -> str:
    letter.refresh_from_db()
    return letter.state


def test_the_list_costs_as_much_for_fifty_letters_of_as_many_projects_as_for_one(
    admin_client: Client, make_letter: MakeLetter, make_key: MakeKey
) -> None:
    counts = []
    for more in (1, 49):
        for number in range(more):
            key, _ = make_key()
            make_letter(error=InvalidRequest(f"cause {'x' * number}"), project_id=key.project_id, api_key_id=key.pk)
        with CaptureQueriesContext(connection) as seen:
            response = admin_client.get(LIST)
        assert len(ids_on(response)) == DeadLetter.objects.count()
        counts.append(len(seen))
    assert counts[1] == counts[0] <= 15
    assert key.project.name in response.content.decode()


def test_a_letter_is_found_by_the_id_of_its_task_as_it_is_shown_anywhere(
    admin_client: Client, make_letter: MakeLetter
) -> None:
    letter, _ = make_letter(), make_letter()
    shown = str(letter.task_id)
    for term in (f"task_{letter.task_id.hex}", letter.task_id.hex, shown, f" {shown} "):
        assert ids_on(admin_client.get(LIST, {"q": term})) == [letter.pk]
    assert ids_on(admin_client.get(LIST, {"q": "nonsense"})) == []


def test_letters_are_listed_newest_first_and_narrowed(
    admin_client: Client, make_letter: MakeLetter, make_key: MakeKey
) -> None:
    key, _ = make_key()
    first, second = make_letter(project_id=key.project_id), make_letter()
    triage.discard(first.pk, reason="r")
    for query, expected in (
        ({}, [second.pk, first.pk]),
        ({"state__exact": "open"}, [second.pk]),
        ({"project__id__exact": str(key.project_id)}, [first.pk]),
        ({"q": str(second.task_id)}, [second.pk]),
        ({"q": "nothing"}, []),
    ):
        assert ids_on(admin_client.get(LIST, query)) == expected, query


def test_letters_whose_project_and_group_are_gone_are_shown_all_the_same(
    admin_client: Client, make_letter: MakeLetter
) -> None:
    letter = make_letter()
    FailureGroup.objects.all().delete()
    html = admin_client.get(LIST).content.decode()
    assert str(letter.project_id) in html
    assert admin_client.get(page(letter)).status_code == 200


def test_the_page_says_what_was_tried_and_links_to_the_task(admin_client: Client, make_letter: MakeLetter) -> None:
    letter = make_letter(error=InvalidRequest("<b>odd</b> words"), upstream="p/m")
    html = admin_client.get(page(letter)).content.decode()
    assert "&lt;b&gt;odd&lt;/b&gt; words" in html
    assert "<b>odd" not in html
    assert reverse("admin:tasks_task_change", args=[letter.task_id]) in html
    assert "rd-failed" in html
    assert "p/m" in html


def test_the_page_stays_when_the_task_is_gone(admin_client: Client, make_letter: MakeLetter) -> None:
    letter = make_letter()
    Task.objects.all().delete()
    assert "Nothing has been tried yet" in admin_client.get(page(letter)).content.decode()


@pytest.mark.parametrize(("action", "state"), [("redrive", "redriven"), ("discard", "discarded")])
def test_a_decision_is_asked_for_by_get_and_made_by_post(
    as_person: AsPerson, make_letter: MakeLetter, action: str, state: str
) -> None:
    client, letter = as_person("view_deadletter", f"{action}_deadletter"), make_letter()
    assert client.get(page(letter, action)).status_code == 200
    assert state_of(letter) == "open"
    response = client.post(page(letter, action), {"reason": "because", "code": "duplicate"})
    assert response["Location"] == page(letter)
    assert state_of(letter) == state
    assert [(entry.action, entry.reason) for entry in AuditEntry.objects.all()] == [(action, "because")]
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_who_may_only_look_is_offered_nothing_and_refused(
    as_person: AsPerson, make_letter: MakeLetter, action: str
) -> None:
    client, letter = as_person("view_deadletter"), make_letter()
    html = client.get(page(letter)).content.decode()
    assert page(letter, action) not in html
    assert client.post(page(letter, action), {"reason": "r"}).status_code == 403
    assert state_of(letter) == "open"


def test_who_may_not_look_sees_no_letters(as_person: AsPerson, make_letter: MakeLetter) -> None:
    client, letter = as_person("view_task"), make_letter()
    assert client.get(LIST).status_code == 403
    assert client.get(page(letter)).status_code in (302, 403)


def test_a_discard_without_a_reason_is_asked_again(admin_client: Client, make_letter: MakeLetter) -> None:
    letter = make_letter()
    response = admin_client.post(page(letter, "discard"), {"reason": " "})
    assert response.status_code == 200
    assert response.context["form"].errors["reason"]
    assert state_of(letter) == "open"


def test_who_comes_second_is_told_and_nothing_is_logged(admin_client: Client, make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.redrive(letter.pk)
    assert page(letter, "redrive") not in admin_client.get(page(letter)).content.decode()
    response = admin_client.post(page(letter, "discard"), {"reason": "r", "code": "other"}, follow=True)
    assert "redriven already" in response.content.decode()
    assert (state_of(letter), LogEntry.objects.count(), AuditEntry.objects.count()) == ("redriven", 0, 1)


def test_nobody_adds_or_deletes_letters(admin_client: Client, make_letter: MakeLetter) -> None:
    letter = make_letter()
    for action in ("delete",):
        assert admin_client.post(page(letter, action), {"post": "yes"}).status_code == 403
    assert admin_client.post(reverse("admin:dead_letters_deadletter_add"), {}).status_code == 403
    assert state_of(letter) == "open"


def test_the_error_of_more_than_a_hundred_attempts_is_that_of_the_last(
    admin_client: Client, make_letter: MakeLetter
) -> None:
    letter = make_letter()
    died = TaskAttempt.objects.get(task_id=letter.task_id)
    earlier = {
        field.attname: getattr(died, field.attname)
        for field in TaskAttempt._meta.concrete_fields
        if not field.primary_key
    }
    TaskAttempt.objects.filter(pk=died.pk).update(number=151)
    TaskAttempt.objects.bulk_create(
        TaskAttempt(**{**earlier, "number": number, "error_message": "It was busy."}) for number in range(1, 151)
    )
    failure = admin_client.get(page(letter)).context["failure"]
    assert failure.message == "It does not fit."


@pytest.mark.parametrize("action", ["redrive", "discard", "edit"])
def test_a_decision_says_which_letter_it_is_about(admin_client: Client, make_letter: MakeLetter, action: str) -> None:
    letter = make_letter()
    html = admin_client.get(page(letter, action)).content.decode()
    assert html.count(str(letter)) == 1


@pytest.mark.parametrize("query", ["code:nothing-like-it", "no_such_term:1"])
def test_a_search_that_finds_nothing_offers_to_decide_nothing(
    admin_client: Client, make_letter: MakeLetter, query: str
) -> None:
    make_letter()
    html = admin_client.get(LIST, {"q": query}).content.decode()
    assert "Nothing matches." in html
    assert "Create a new item" not in html  # nobody adds letters
    assert reverse("admin:dead_letters_deadletter_act") not in html


def test_a_list_is_called_what_it_lists(admin_client: Client, make_letter: MakeLetter) -> None:
    make_letter()
    html = admin_client.get(LIST).content.decode()
    assert "Dead letters | Redrive" in html
    assert "Select dead letter" not in html
