"""The one language in which people narrow letters and groups: in the admin, over REST, on the command line.

    kind:chat_completion code:model_error project:billing queue:low age:>2h "connection refused"

All terms must match. A bare or quoted word is looked for in the words of the failure (message, code, upstream, kind);
`task_...` finds the letters of a task. Ages: 90s, 30m, 2h, 7d; `age:>2h` (or `age:2h`) is older, `age:<2h` younger.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from apps.access.models import Project
from apps.core.database import storable
from apps.core.errors import InvalidRequest
from apps.dead_letters import group_states, states
from apps.dead_letters.models import DeadLetter, FailureGroup, GroupKey
from apps.tasks import states as task_states
from apps.tasks.models import PREFIX

LONGEST = 500  # characters of a query
MOST_TERMS = 20
MOST_GROUPS = 10_000  # that are looked up first
OLDEST = timedelta(days=36_525)  # of an age: a century, for a calendar has a beginning

QUALIFIERS: Final = {
    "kind": "a kind of task",
    "queue": f"one of {', '.join(task_states.QUEUES)}",
    "code": "an error code, such as model_error",
    "project": "a project's name",
    "age": "since the death (of a group: since it was first seen): 30m, >2h, <7d",
    "state": f"of letters: {', '.join(states.ALL)}; of groups: {', '.join(group_states.ALL)}",
    "group": "the first characters of a fingerprint",
    "owner": "who a group is assigned to; `none`: nobody",
}
HELP = "Words of the failure, a task id, or kind: queue: code: project: age: state: group: owner:"

_TERM = re.compile(r'(?:(?P<name>[a-z_]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))(?=\s|$)')
_AGE = re.compile(r"(?P<way>[<>]?)(?P<number>\d{1,6})(?P<unit>[smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search. older, younger: ages. words: each must be in the failure's words."""

    kind: str = ""
    queue: str = ""
    code: str = ""
    project: str = ""
    state: str = ""
    group: str = ""
    owner: str = ""
    older: timedelta | None = None
    younger: timedelta | None = None
    task: UUID | None = None
    words: tuple[str, ...] = ()

    def is_empty(self) -> bool:
        """Whether it narrows nothing."""
        return self == Query()


def parse(text: str) -> Query:
    """The query of a text. Raises InvalidRequest (param `q`) that says what is wrong and what there is."""
    if len(text) > LONGEST or storable(text) != text:
        raise InvalidRequest(f"A search has at most {LONGEST} characters, no NUL and no half ones.", param="q")
    found: dict[str, object] = {}
    words: list[str] = []
    place, count = 0, 0
    text = text.strip()
    while place < len(text):
        match = _TERM.match(text, place)
        if match is None:
            raise InvalidRequest(f'This cannot be read: {text[place : place + 40]!r}. Quote it with "...".', param="q")
        place = match.end()
        while place < len(text) and text[place].isspace():
            place += 1
        count += 1
        name, value = match["name"], match["quoted"]
        if value is None:
            value = match["bare"]
            if name is None and value.endswith(":") and value[:-1] in QUALIFIERS:
                name, value = value[:-1], ""
        _take(name, value, found, words)
    if count > MOST_TERMS:
        raise InvalidRequest(f"A search has at most {MOST_TERMS} terms.", param="q")
    return Query(**found, words=tuple(words))  # type: ignore[arg-type]


def letters(
    query: Query, *, among: "QuerySet[DeadLetter] | None" = None, now: datetime | None = None
) -> "QuerySet[DeadLetter]":
    """The letters that match, among these or all. now: that ages are counted from. Raises InvalidRequest."""
    rows = DeadLetter.objects.all() if among is None else among
    for name in ("kind", "queue", "code", "state"):
        if value := getattr(query, name):
            rows = rows.filter(**{name: value})
    _known("state", query.state, states.ALL)
    if query.project:
        rows = rows.filter(project_id=_project(query.project))
    if query.task is not None:
        rows = rows.filter(task_id=query.task)
    now = now or timezone.now()
    if query.older is not None:
        rows = rows.filter(created_at__lt=now - query.older)
    if query.younger is not None:
        rows = rows.filter(created_at__gte=now - query.younger)
    if query.words or query.group or query.owner or (query.kind and query.code):
        # Groups are few: found first, they lead Postgres to the letters by an index. So many narrow nothing. All
        # letters of a group are of its kind and code; a kind and a code that never meet are found absent at once.
        chosen = _words(_of_owner(FailureGroup.objects.all(), query.owner), query).values_list("pk", flat=True)
        for name in ("kind", "code"):
            if value := getattr(query, name):
                chosen = chosen.filter(**{name: value})
        names = list(chosen[: MOST_GROUPS + 1])
        rows = rows.filter(group_id__in=names if len(names) <= MOST_GROUPS else chosen)
    return rows


def groups(query: Query) -> "QuerySet[FailureGroup]":
    """The groups that match, in no order. Raises InvalidRequest."""
    rows = _words(_of_owner(FailureGroup.objects.all(), query.owner), query)
    for name in ("kind", "queue", "code", "state"):
        if value := getattr(query, name):
            rows = rows.filter(**{name: value})
    _known("state", query.state, group_states.ALL)
    now = timezone.now()
    if query.older is not None:
        rows = rows.filter(first_seen__lt=now - query.older)
    if query.younger is not None:
        rows = rows.filter(first_seen__gte=now - query.younger)
    if query.project:
        rows = of_project(rows, _project(query.project))
    if query.task is not None:
        rows = rows.filter(pk__in=DeadLetter.objects.filter(task_id=query.task).values("group_id"))
    return rows


def of_project(rows: "QuerySet[FailureGroup]", project_id: UUID) -> "QuerySet[FailureGroup]":
    """Those of the groups that have hit a project."""
    return rows.filter(Exists(GroupKey.objects.filter(group_id=OuterRef("pk"), project_id=project_id)))


def quoted(value: str) -> str:
    """A value as a term's, with quotes where it needs them."""
    value = value.replace('"', " ")
    return f'"{value}"' if re.search(r"\s", value) or not value else value


def _take(name: str | None, value: str, found: dict[str, object], words: list[str]) -> None:
    if name is None or name not in QUALIFIERS:
        if name is not None and re.fullmatch(r"[a-z]+", name) and not value.startswith("//"):
            raise InvalidRequest(f"There is no {name}: here. There are: {': '.join(QUALIFIERS)}:", param="q")
        text = value if name is None else f"{name}:{value}"
        if (task := _uuid(text.removeprefix(PREFIX))) is not None:
            _once("task", task, "A task", found)
        elif text:
            words.append(text)
        return
    if name == "age":
        match = _AGE.fullmatch(value)
        if match is None:
            raise InvalidRequest(f"age: is {QUALIFIERS['age']}.", param="q")
        way = "younger" if match["way"] == "<" else "older"
        _once(way, min(timedelta(**{_UNITS[match["unit"]]: int(match["number"])}), OLDEST), "age:", found)
        return
    if not value:
        raise InvalidRequest(f"{name}: is {QUALIFIERS[name]}.", param="q")
    _once(name, value, f"{name}:", found)


def _once(name: str, value: object, shown: str, found: dict[str, object]) -> None:
    """All terms must match: of two that differ, to heed the last alone would be to act on letters nobody meant."""
    if found.setdefault(name, value) != value:
        raise InvalidRequest(f"{shown} is there twice, and all terms must match.", param="q")


def _words(rows: "QuerySet[FailureGroup]", query: Query) -> "QuerySet[FailureGroup]":
    if query.group:
        rows = rows.filter(pk__startswith=query.group)
    for word in query.words:
        fields = ("message", "code", "upstream", "kind")
        rows = rows.filter(reduce(lambda a, b: a | b, (Q(**{f"{field}__icontains": word}) for field in fields)))
    return rows


def _of_owner(rows: "QuerySet[FailureGroup]", owner: str) -> "QuerySet[FailureGroup]":
    if owner == "none":
        return rows.filter(owner__isnull=True)
    return rows.filter(owner__username=owner) if owner else rows


def _project(name: str) -> UUID:
    found = Project.objects.filter(name=name).values_list("pk", flat=True).first()
    if found is None:
        raise InvalidRequest(f"There is no project {name[:64]!r}.", param="q")
    return found


def _known(name: str, value: str, known: Sequence[str]) -> None:
    if value and value not in known:
        raise InvalidRequest(f"{name}: is one of {', '.join(known)}.", param="q")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
