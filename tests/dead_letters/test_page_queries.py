"""No page of the operators asks the database more than 15 times, and none more often where there is more to show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from apps.access import audit
from apps.completions import statistics
from apps.core.errors import InvalidRequest
from apps.dead_letters import tallies, triage
from apps.dead_letters.bulk import pacer, plan
from apps.dead_letters.models import Alert, AlertRule, BulkOperation, DeadLetter, FailureGroup
from apps.tasks import holds
from apps.tasks.models import WorkerPresence
from config.roles import OPERATOR, ROLES
from tests.conftest import MakeKey, MakeRoute
from tests.dead_letters.conftest import MakeLetter
from tests.tasks.conftest import MakeKind

pytestmark = pytest.mark.django_db
MOST = 15
FEW, MANY = 3, 60
Address = Callable[["World"], str]


@dataclass
class World:
    """What the pages are about. letters: the first ones, of one group. More is made by `grow`."""

    grow: Callable[[int], None]
    letter: DeadLetter | None = None
    redriven: DeadLetter | None = None
    operation: BulkOperation | None = None


def at(page: str, *, of: str = "", **query: str) -> Address:
    """The address of a page; of: which row of the world it is about."""

    def address(world: World) -> str:
        row = getattr(world, of) if of in ("letter", "redriven", "operation") else None
        args = [world.letter.group_id] if of == "group" and world.letter else [row.pk] if row is not None else []
        found = "&".join(f"{name}={value.format(letter=world.letter)}" for name, value in query.items())
        return f"{reverse(f'admin:{page}', args=args)}?{found}"

    return address


GROUPS, GROUP = "dead_letters_failuregroup_changelist", "dead_letters_failuregroup_change"
LETTERS, LETTER = "dead_letters_deadletter_changelist", "dead_letters_deadletter_change"
PAGES: dict[str, Address] = {
    "home": at("index"),
    "home, the part that refreshes": at("operations"),
    **{f"groups, {tab}": at(GROUPS, tab=tab) for tab in ("review", "open", "snoozed", "resolved", "all")},
    "groups, words": at(GROUPS, tab="all", q="cause"),
    "groups, kind, code, age": at(GROUPS, tab="all", q="kind:{letter.kind} code:validation_error age:<2h"),
    "groups, project": at(GROUPS, tab="all", q="project:{letter.project.name}"),
    "groups, owner and state": at(GROUPS, tab="all", q="owner:none state:for_review"),
    "groups, an older page": at(GROUPS, tab="all", older="2999-01-01T00:00:00%2B00:00_x"),
    "groups, not understood": at(GROUPS, q="nonsense:1"),
    "group": at(GROUP, of="group"),
    "letter": at(LETTER, of="letter"),
    "letter, redriven": at(LETTER, of="redriven"),
    "letters": at(LETTERS),
    "letters, state": at(LETTERS, state__exact="open"),
    "letters, kind, queue, project": at(
        LETTERS, kind="{letter.kind}", queue="default", project__id__exact="{letter.project_id}"
    ),
    "letters, days": at(LETTERS, created_at_from="2020-01-01", created_at_to="2999-01-01"),
    "letters, words": at(LETTERS, q="cause"),
    "letters, code, age, project": at(LETTERS, q="code:validation_error age:<2h project:{letter.project.name}"),
    "letters, task": at(LETTERS, q="{letter.task_id}"),
    "letters, group and state": at(LETTERS, q="group:{letter.group_id} state:open"),
    "letters, an older page": at(
        LETTERS, older="2999-01-01T00:00:00%2B00:00_01900000-0000-7000-8000-000000000000"
    ),
    "bulk operations": at("dead_letters_bulkoperation_changelist"),
    "bulk operation": at("dead_letters_bulkoperation_change", of="operation"),
    "queues": at("tasks_queuestate_changelist"),
    "audit": at("access_auditentry_changelist"),
    "alerts": at("dead_letters_alert_changelist"),
}  # fmt: skip


@pytest.fixture
def world(
    make_letter: MakeLetter, make_key: MakeKey, make_kind: MakeKind, make_route: MakeRoute, django_user_model: Any
) -> World:
    """Three of everything; `grow(60)` adds sixty to each: groups of a project each, letters of one group, the rest."""
    kind = make_kind()
    owner = django_user_model.objects.create_user("ada", is_staff=True)

    def letter_of(number: int, words: str) -> DeadLetter:
        key, _ = make_key()
        return make_letter(
            kind=kind, error=InvalidRequest(words), upstream="p/m", project_id=key.project_id, api_key_id=key.pk
        )

    def grow(count: int) -> None:
        rule = AlertRule.objects.first() or AlertRule.objects.create(name="r", event="rate")
        for number in range(count):
            letter_of(number, "the first cause")
            own = letter_of(number, f"cause {uuid4().hex.translate(LETTERS_ONLY)}")
            BulkOperation.objects.create(
                action="redrive", title="t", groups=[own.group_id], created_by="ada", state="running"
            )
            Alert.objects.create(rule=rule, event="rate", severity="warning", subject=own.group_id, title="t")
            make_route()
            worker = WorkerPresence(
                id=uuid4(), host="h", pid=number, queues="default", slots=1, expires_at=own.created_at
            )
            worker.save()
            if number % 2:
                FailureGroup.objects.filter(pk=own.group_id).update(state="open", owner=owner)
                holds.hold(own.group_id)
        tallies.fold()
        for row in (world.letter, FailureGroup.objects.get(pk=world.letter.group_id), world.operation):  # type: ignore[union-attr]
            for _ in range(count):
                audit.record("note", row, reason="r")  # type: ignore[arg-type]

    world = World(grow)
    world.letter = letter_of(0, "the first cause")
    world.redriven = letter_of(1, "the first cause")
    triage.redrive(world.redriven.pk, reason="r")
    tallies.fold()
    world.operation = plan.create("redrive", groups=[world.letter.group_id])
    pacer.tick()
    world.operation.refresh_from_db()
    assert world.operation.state == "ready"
    grow(FEW)
    return world


LETTERS_ONLY = str.maketrans("0123456789", "ghijklmnop")  # numbers are no part of a cause


@pytest.fixture
def person(client: Client, django_user_model: Any) -> Client:
    """A member of the staff with the permissions of an operator by a group."""
    group = Group.objects.create(name="team")
    for name in ROLES[OPERATOR]:
        app, _, codename = name.partition(".")
        group.permissions.add(*Permission.objects.filter(Q(content_type__app_label=app, codename=codename)))
    user = django_user_model.objects.create_user("grace", is_staff=True)
    user.groups.add(group)
    client.force_login(user)
    return client


def counted(client: Client, world: World) -> dict[str, int]:
    """Per page its statements."""
    found = {}
    for name, address in PAGES.items():
        try:
            url = address(world)
        except NoReverseMatch:  # that page is not there
            continue
        statistics.forget()
        with CaptureQueriesContext(connection) as seen:
            assert client.get(url).status_code == 200, name
        found[name] = len(seen)
    return found


@pytest.mark.parametrize("who", ["admin_client", "person"])
def test_no_page_asks_often_and_none_more_often_for_sixty_than_for_three(
    request: pytest.FixtureRequest, world: World, who: str
) -> None:
    client: Client = request.getfixturevalue(who)
    few = counted(client, world)
    world.grow(MANY)
    many = counted(client, world)
    assert {name: (few[name], count) for name, count in many.items() if count > MOST or count > few[name]} == {}
