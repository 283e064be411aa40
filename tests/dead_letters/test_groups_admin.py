"""The pages of failure groups: what is listed, found and offered, and that only a POST decides."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest
from apps.dead_letters import group_rows, grouping, tallies, triage
from apps.dead_letters.models import BulkOperation, DeadLetter, FailureGroup
from apps.tasks import holds
from tests.dead_letters.conftest import MakeLetter
from tests.tasks.conftest import AsPerson, MakeKind
from tests.time import age

pytestmark = pytest.mark.django_db
LIST, ACT = reverse("admin:dead_letters_failuregroup_changelist"), reverse("admin:dead_letters_failuregroup_act")


def page(group: FailureGroup, action: str = "change") -> str:
    return reverse(f"admin:dead_letters_failuregroup_{action}", args=[group.pk])


def names_on(response: Any) -> list[str]:
    return [row.group.pk for row in response.context["rows"]]


@pytest.fixture
def groups(make_letter: MakeLetter, make_kind: MakeKind) -> list[FailureGroup]:
    """Three, the last one seen first; with one, two and three letters."""
    found = []
    for count, words in enumerate(("first cause", "second cause", "third <b>cause</b>"), start=1):
        kind = make_kind()
        letters = [make_letter(kind=kind, error=InvalidRequest(words), upstream="p/m") for _ in range(count)]
        found.append(letters[0].group_id)
    tallies.fold()
    rows = [FailureGroup.objects.get(pk=name) for name in found]
    for hours, row in enumerate(rows[::-1]):
        age(row, hours=hours)
    return rows


def test_groups_stand_in_their_tabs_last_seen_first(admin_client: Client, groups: list[FailureGroup]) -> None:
    first, second, third = groups
    assert names_on(admin_client.get(LIST)) == [third.pk, second.pk, first.pk]
    grouping.resolve(second.pk)
    grouping.snooze(third.pk, more=5)
    for tab, expected in (("review", [first.pk]), ("resolved", [second.pk]), ("snoozed", [third.pk]), ("open", [])):
        response = admin_client.get(LIST, {"tab": tab})
        assert names_on(response) == expected, tab
        counts = {one["name"]: one["count"] for one in response.context["tabs"]}
        assert counts == {"review": 1, "open": 0, "snoozed": 1, "resolved": 1, "all": 3}
    assert len(names_on(admin_client.get(LIST, {"tab": "no-such-tab"}))) == 1


def test_a_group_shows_its_counts_and_its_words_as_text(admin_client: Client, groups: list[FailureGroup]) -> None:
    html = admin_client.get(LIST).content.decode()
    assert "third &lt;b&gt;cause&lt;/b&gt;" in html
    assert "validation_error 400 · p/m" in html
    assert "rd-spark" in html
    holds.hold(groups[0].pk)
    assert "retries held" in admin_client.get(LIST).content.decode()


def test_a_search_narrows_and_what_it_does_not_understand_is_said(
    admin_client: Client, groups: list[FailureGroup]
) -> None:
    first, second, _ = groups
    assert names_on(admin_client.get(LIST, {"q": "second"})) == [second.pk]
    assert names_on(admin_client.get(LIST, {"q": f"kind:{first.kind}"})) == [first.pk]
    assert names_on(admin_client.get(LIST, {"q": "age:>1d"})) == []
    response = admin_client.get(LIST, {"q": "colour:red"})
    assert response.status_code == 200
    assert "There is no colour: here" in response.content.decode()
    assert names_on(response) == []


def test_pages_follow_one_another_by_cursor(admin_client: Client, groups: list[FailureGroup]) -> None:
    for row in groups:
        for number in range(20):
            FailureGroup.objects.create(
                fingerprint=f"{row.pk[:20]}{number:02}", kind="k", queue="low", code="c", message="m",
                last_seen=row.last_seen,
            )  # fmt: skip
    seen = names_on(admin_client.get(LIST))
    response = admin_client.get(LIST)
    assert len(seen) == group_rows.SIZE
    older = admin_client.get(LIST, {"older": response.context["older"]})
    assert len(set(seen) | set(names_on(older))) == len(seen) + len(names_on(older)) == 63
    newer = admin_client.get(LIST, {"newer": older.context["newer"]})
    assert names_on(newer) == seen
    for bad in ("x", "2026-01-01_x\0", "_", f"2026-01-01_{row.pk}", f"2026-01-01T00:00:00_{row.pk}"):
        assert admin_client.get(LIST, {"older": bad}).status_code in (200, 302, 400)


def test_the_list_costs_as_many_queries_for_fifty_groups_as_for_three(
    admin_client: Client, groups: list[FailureGroup], django_user_model: Any
) -> None:
    counts = []
    for more in (0, 47):
        for number in range(more):
            owner = django_user_model.objects.create_user(f"person-{number}", is_staff=True)
            FailureGroup.objects.create(
                fingerprint=f"{number:04}", kind="k", queue="low", code="c", message="m", owner=owner
            )
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(LIST, {"tab": "all"})
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 15


def test_the_page_tells_what_broke_whom_it_hurts_and_what_was_done(
    admin_client: Client, groups: list[FailureGroup], admin_user: Any
) -> None:
    group = groups[2]
    grouping.assign(group.pk, owner=admin_user.username)
    grouping.note(group.pk, text="ask the <vendor>")
    with CaptureQueriesContext(connection) as captured:
        html = admin_client.get(page(group)).content.decode()
    assert len(captured) <= 15
    for shown in (
        "p/m answered 400: 3 times since",
        "ask the &lt;vendor&gt;",
        "Redrive 3",
        "no key",
        "<b>command line</b>",
    ):
        assert shown in html, shown
    assert str(DeadLetter.objects.filter(group=group).first()) in html


def test_choosing_groups_makes_an_operation_by_post_alone(admin_client: Client, groups: list[FailureGroup]) -> None:
    assert admin_client.get(ACT, {"act": "redrive", "group": groups[0].pk}).status_code == 405
    response = admin_client.post(ACT, {"act": "redrive", "group": [groups[0].pk, groups[2].pk]})
    operation = BulkOperation.objects.get()
    assert response["Location"] == reverse("admin:dead_letters_bulkoperation_change", args=[operation.pk])
    assert (operation.action, operation.state) == ("redrive", "counting")
    assert operation.groups == sorted([groups[0].pk, groups[2].pk])


def test_all_of_a_tab_and_a_search_can_be_chosen_without_naming_them(
    admin_client: Client, groups: list[FailureGroup]
) -> None:
    admin_client.post(ACT, {"act": "discard", "all": "1", "tab": "review", "q": "cause -"})
    assert not BulkOperation.objects.exists()
    admin_client.post(ACT, {"act": "discard", "all": "1", "tab": "review", "q": "second"})
    assert BulkOperation.objects.get().groups == [groups[1].pk]


def test_all_of_a_tab_are_reopened_though_none_has_an_open_letter(
    admin_client: Client, groups: list[FailureGroup]
) -> None:
    for letter in DeadLetter.objects.exclude(group=groups[0]):
        triage.discard(letter.pk, reason="r")
    tallies.fold()
    response = admin_client.post(ACT, {"act": "reopen", "all": "1", "tab": "resolved"}, follow=True)
    assert "2 of 2 open now" in response.content.decode()
    assert list(FailureGroup.objects.filter(state="open").order_by("pk")) == sorted(groups[1:], key=lambda row: row.pk)


@pytest.mark.parametrize(
    "posted",
    [
        {},
        {"act": "redrive"},
        {"act": "explode", "group": "x"},
        {"act": "redrive", "group": "x"},
        {"act": "redrive", "group": "", "back": "group"},
        {"act": "redrive", "group": "\n", "back": "group"},
    ],
)
def test_what_makes_no_sense_changes_nothing_and_is_said(
    admin_client: Client, groups: list[FailureGroup], posted: dict[str, str]
) -> None:
    response = admin_client.post(ACT, posted, follow=True)
    assert response.status_code == 200
    assert len(response.context["messages"]) == 1
    assert not BulkOperation.objects.exists()


def test_several_are_resolved_at_once_and_each_is_audited(admin_client: Client, groups: list[FailureGroup]) -> None:
    grouping.resolve(groups[0].pk)
    response = admin_client.post(ACT, {"act": "resolve", "group": [row.pk for row in groups]}, follow=True)
    assert "2 of 3 resolved" in response.content.decode()
    assert set(FailureGroup.objects.values_list("state", flat=True)) == {"resolved"}
    assert AuditEntry.objects.filter(action="resolve").count() == 3


@pytest.mark.parametrize(
    ("action", "posted", "changed"),
    [
        ("snooze", {"hours": "2", "more": "7"}, {"state": "snoozed", "snooze_after": 8}),
        ("resolve", {}, {"state": "resolved"}),
        ("reopen", {}, {"state": "open"}),
        ("note", {"text": "t"}, {"note": "t"}),
    ],
)
def test_a_decision_is_asked_for_by_get_and_made_by_post(
    as_person: AsPerson, groups: list[FailureGroup], action: str, posted: dict[str, str], changed: dict[str, Any]
) -> None:
    client, group = as_person("view_failuregroup", "change_failuregroup"), groups[0]
    assert client.get(page(group, action)).status_code == 200
    assert FailureGroup.objects.get(pk=group.pk).state == "for_review"
    assert client.post(page(group, action), posted)["Location"] == page(group)
    after = FailureGroup.objects.get(pk=group.pk)
    assert {name: getattr(after, name) for name in changed} == changed


def test_a_snooze_without_an_end_is_asked_again(admin_client: Client, groups: list[FailureGroup]) -> None:
    response = admin_client.post(page(groups[0], "snooze"), {})
    assert "Say for how long" in response.content.decode()
    assert FailureGroup.objects.get(pk=groups[0].pk).state == "for_review"


def test_who_may_only_look_is_offered_nothing_and_refused(as_person: AsPerson, groups: list[FailureGroup]) -> None:
    client, group = as_person("view_failuregroup"), groups[0]
    for html in (client.get(LIST).content.decode(), client.get(page(group)).content.decode()):
        assert 'name="act"' not in html
    for action in ("assign", "snooze", "resolve", "reopen", "note", "hold", "release"):
        assert page(group, action) not in client.get(page(group)).content.decode()
        assert client.post(page(group, action), {}).status_code == 403
    for act in ("redrive", "discard"):
        assert client.post(ACT, {"act": act, "group": group.pk}).status_code == 403
    client.post(ACT, {"act": "resolve", "group": group.pk})
    assert FailureGroup.objects.get(pk=group.pk).state == "for_review"


def test_who_may_not_look_sees_no_groups(as_person: AsPerson, groups: list[FailureGroup]) -> None:
    client = as_person("view_task")
    assert client.get(LIST).status_code == 403
    assert client.get(page(groups[0])).status_code == 403


def test_all_on_the_home_are_those_that_it_counts(admin_client: Client, groups: list[FailureGroup]) -> None:
    grouping.resolve(groups[0].pk)  # with an open letter: the home does not show it
    home = admin_client.get(reverse("admin:index"))
    assert home.context["matching"] == 2
    assert "All 2 groups" in home.content.decode()
    admin_client.post(ACT, {"act": "redrive", "all": "1", "tab": "urgent", "back": "home"})
    assert BulkOperation.objects.get().groups == sorted(row.pk for row in groups[1:])


@pytest.mark.parametrize("action", ["assign", "snooze", "resolve", "note", "hold"])
def test_a_decision_says_which_group_it_is_about(admin_client: Client, groups: list[FailureGroup], action: str) -> None:
    assert str(groups[0]) in admin_client.get(page(groups[0], action)).content.decode()
