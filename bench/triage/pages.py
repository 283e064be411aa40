"""The operators' pages: each asked for by Django's test client, its time on the server and its statements."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import urlencode

from bench.report import markdown, number
from bench.triage import shape

BAR = 0.3  # seconds
MOST_STATEMENTS = 15


@dataclass
class Timing:
    """What one page took, in seconds. first: the unmeasured look before. own: CPU of this process.

    statements: per look, (seconds, statement, parameters).
    """

    name: str
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    statements: list[list[tuple[float, str, Any]]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The bar is about it."""
        return median(self.seconds)

    @property
    def in_postgres(self) -> float:
        """Seconds of all statements of a look."""
        return median(sum(one[0] for one in look) for look in self.statements)

    @property
    def slowest(self) -> tuple[float, str, Any]:
        """The statement that took longest in the middle look."""
        looks = sorted((max(look, key=lambda one: one[0]) for look in self.statements), key=lambda one: one[0])
        return looks[len(looks) // 2]


class Watch:
    """Notes each statement of a connection with its time."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, Any]] = []

    def __call__(self, execute: Callable[..., Any], statement: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(statement, params, many, context)
        finally:
            self.seen.append((time.perf_counter() - began, statement, params))


def measure(client: Any, name: str, url: str, *, runs: int) -> Timing:
    """Ask for one page so many times."""
    from django.db import connection

    from apps.completions import statistics

    timing = Timing(name)
    for look in range(runs + 1):
        statistics.forget()  # what the home keeps for a moment is read each time
        watch = Watch()
        began, used = time.perf_counter(), time.process_time()
        with connection.execute_wrapper(watch):
            answer = client.get(url)
        took, own = time.perf_counter() - began, time.process_time() - used
        if answer.status_code != 200:
            raise SystemExit(f"{name}: {url} answered {answer.status_code}")
        if look:
            timing.seconds.append(took)
            timing.own.append(own)
            timing.statements.append(watch.seen)
        else:
            timing.first = took
    return timing


def log_in() -> Any:
    """A client of the superuser, and the user."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    people = get_user_model()._default_manager
    user = people.filter(username="bench").first() or people.create_superuser("bench")  # type: ignore[attr-defined]
    client = Client(SERVER_NAME="localhost")
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client, user


def all_of_them(operation: Any = None) -> Iterator[tuple[str, str]]:
    """(name, address) of each page. operation: one with 100,000 items that is ready."""
    from django.urls import NoReverseMatch, reverse

    def at(page: str, *args: Any, **query: str) -> str:
        return f"{reverse(f'admin:{page}', args=args)}{'?' + urlencode(query) if query else ''}"

    yield "home", at("index")
    yield "home, the part that refreshes", at("operations")
    yield from _groups(at)
    yield from _letters(at)
    yield "bulk operations", at("dead_letters_bulkoperation_changelist")
    yield "bulk operation, done, 100,000 items", at("dead_letters_bulkoperation_change", _done().pk)
    if operation is not None:
        yield "bulk operation, ready, 100,000 items", at("dead_letters_bulkoperation_change", operation.pk)
    yield "queues", at("tasks_queuestate_changelist")
    yield "audit", at("access_auditentry_changelist")
    yield "audit, the oldest page", at("access_auditentry_changelist", older=_oldest("access.AuditEntry", "at"))
    try:
        yield "alerts", at("dead_letters_alert_changelist")
    except NoReverseMatch:  # that page is not there
        return


def _groups(at: Callable[..., str]) -> Iterator[tuple[str, str]]:
    from apps.dead_letters.models import FailureGroup

    board = "dead_letters_failuregroup_changelist"
    for tab in ("review", "open", "snoozed", "resolved", "all"):
        yield f"groups, {tab}", at(board, tab=tab)
    for words, query in (
        ("a rare word", shape.RARE), ("a common word", shape.COMMON), ("a kind", "kind:embeddings"),
        ("a code", f"code:{shape.RARE_CODE}"), ("a project", "project:storefront"), ("an age", "age:<2d"),
        ("all at once", "kind:chat_completion code:timeout project:billing age:>1d retried"),
    ):  # fmt: skip
        yield f"groups, {words}", at(board, tab="all", q=query)
    yield "groups, the oldest page", at(board, tab="all", older=_oldest("dead_letters.FailureGroup", "last_seen"))
    largest = FailureGroup.objects.order_by("-died_count").first()
    smallest = FailureGroup.objects.filter(died_count__gt=0).order_by("died_count", "pk").first()
    assert largest is not None
    assert smallest is not None
    for name, group in (("the largest", largest), ("a small one", smallest)):
        yield f"group, {name}", at("dead_letters_failuregroup_change", group.pk)


def _letters(at: Callable[..., str]) -> Iterator[tuple[str, str]]:
    from apps.access.models import Project
    from apps.dead_letters.models import DeadLetter, FailureGroup

    board, page = "dead_letters_deadletter_changelist", "dead_letters_deadletter_change"
    largest = FailureGroup.objects.order_by("-died_count").first()
    assert largest is not None
    of_it = DeadLetter.objects.filter(group=largest)
    middle = of_it.filter(state="open").order_by("created_at")[of_it.filter(state="open").count() // 2]
    redriven = of_it.filter(state="redriven").first()
    yield "letter, of the largest group", at(page, middle.pk)
    yield "letter, redriven", at(page, redriven.pk if redriven else middle.pk)
    yield "letters", at(board)
    for state in ("open", "redriven", "discarded"):
        yield f"letters, filter {state}", at(board, state__exact=state)
    yield "letters, filter kind", at(board, kind="embeddings")
    yield "letters, filter queue", at(board, queue="high")
    for name in ("storefront", shape.TINY):
        chosen = str(Project.objects.get(name=name).pk)
        yield f"letters, filter project {name}", at(board, project__id__exact=chosen)
    chosen = str(Project.objects.get(name="mobile").pk)
    day = f"{of_it.order_by('created_at')[of_it.count() // 5].created_at:%Y-%m-%d}"
    yield "letters, filter days", at(board, created_at_from=day, created_at_to=day)
    yield (
        "letters, filter discarded, project and days",
        at(board, state__exact="discarded", project__id__exact=chosen, created_at_from=day, created_at_to=day),
    )
    yield (
        "letters, filter discarded, kind and queue",
        at(board, state__exact="discarded", kind="embeddings", queue="low"),
    )
    yield (
        "letters, filter discarded, project attic",
        at(board, state__exact="discarded", project__id__exact=str(Project.objects.get(name=shape.TINY).pk)),
    )
    for words, query in (
        ("a rare word", shape.RARE), ("a common word", shape.COMMON), ("a rare code", f"code:{shape.RARE_CODE}"),
        ("a common code", "code:model_error"), ("a young age", "age:<1h"), ("an old age", "age:>6d"),
        ("a project", "project:billing"), ("a small project", f"project:{shape.TINY}"),
        ("a task", f"task_{middle.task_id.hex}"), ("a group and open", f"group:{largest.pk} state:open"),
        ("a group and discarded", f"group:{largest.pk} state:discarded"),
        ("a rare word and discarded", f"{shape.RARE} state:discarded"),
        ("a common word and discarded", f"{shape.COMMON} state:discarded"),
        ("an owner and open", "owner:bench state:open"),
        ("a rare code and a large project", f"code:{shape.RARE_CODE} project:storefront"),
        ("a kind and a code that never meet", "kind:embeddings code:timeout"),
        ("a kind, a queue and a project", "kind:webhook_delivery queue:webhooks project:research"),
        ("two words of few groups", "tier 777"), ("nothing", "no_such_word"),
    ):  # fmt: skip
        yield f"letters, {words}", at(board, q=query)
    deep = _oldest("dead_letters.DeadLetter", "created_at")
    yield "letters, the oldest page", at(board, older=deep)
    yield "letters, the oldest page of the open ones", at(board, state__exact="open", older=deep)


def _done() -> Any:
    from apps.dead_letters.models import BulkOperation

    return BulkOperation.objects.filter(state="done").order_by("-total")[0]


def _oldest(label: str, field_name: str) -> str:
    """The cursor of the last page but some rows."""
    from django.apps import apps

    model = apps.get_model(label)
    row = model._default_manager.order_by(field_name, "pk")[60]
    return f"{getattr(row, field_name).isoformat()}_{row.pk}"


def table(timings: list[Timing]) -> str:
    """Milliseconds and statements of each page."""
    rows = []
    for one in timings:
        slowest = one.slowest
        rows.append(
            [
                one.name,
                number(one.first * 1e3),
                number(one.median * 1e3),
                number(max(one.seconds) * 1e3),
                number(median(one.own) * 1e3),
                number(one.in_postgres * 1e3),
                str(len(one.statements[-1])),
                number(slowest[0] * 1e3),
                "met" if one.median <= BAR else "MISSED",
            ]
        )
    head = [
        "page",
        "first ms",
        "median ms",
        "max ms",
        "own CPU ms",
        "Postgres ms",
        "queries",
        "slowest ms",
        "<= 300 ms",
    ]
    return markdown(head, rows)
