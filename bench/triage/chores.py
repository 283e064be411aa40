"""What else must stay quick beside a million letters: a bulk operation over 100,000, and the clock's chores."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from bench.report import markdown, number

ANSWERED = 1.0  # seconds within which a bulk operation is answered
REASON = "measured"


@dataclass
class Figure:
    """What something took, in seconds each time. bar: at most so long, or None."""

    name: str
    seconds: list[float]
    bar: float | None = None


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what it gave)."""
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def create(client: Any, user: Any) -> tuple[list[Figure], Any]:
    """Redrive the largest group by its button, three times; the last one is counted by the clock and is left ready."""
    from django.urls import reverse

    from apps.dead_letters.bulk import control, pacer
    from apps.dead_letters.models import BulkOperation, FailureGroup

    largest = FailureGroup.objects.order_by("-open_count", "pk")[0]
    asked: dict[str, list[float]] = {}
    for name, page, posted in (
        ("letters that a search finds: answered", "deadletter", {"act": "redrive", "q": f"code:{largest.code}"}),
        (f"a group of {largest.open_count:,} open letters: answered", "failuregroup",
         {"act": "redrive", "group": largest.pk}),
    ):  # fmt: skip
        for _ in range(3):
            _cancel_all(control, BulkOperation)
            took, answer = timed(
                lambda page=page, posted=posted: client.post(reverse(f"admin:dead_letters_{page}_act"), posted)
            )
            if answer.status_code != 302 or "bulkoperation" not in answer["Location"]:
                raise SystemExit(f"{name}: no operation was made: {answer.status_code} {answer.headers}")
            asked.setdefault(name, []).append(took)
    operation = BulkOperation.objects.order_by("-created_at")[0]
    ticks = []
    while operation.state == "counting":
        ticks.append(timed(pacer.tick)[0])
        operation.refresh_from_db()
    found = [Figure(name, seconds, ANSWERED) for name, seconds in asked.items()]
    found.append(Figure(f"its {operation.total:,} letters are counted, in all", [sum(ticks)]))
    found.append(Figure("one tick of the counting", ticks))
    return found, operation


def release(operation: Any, *, runs: int) -> list[Figure]:
    """Ticks that release letters while the others wait; then it is forgotten, so that a later run finds as much."""
    from apps.dead_letters.bulk import control, pacer
    from apps.dead_letters.models import BulkItem, BulkOperation

    control.start(
        operation.pk, confirm=operation.pending, reason=REASON, canary=0, stop_percent=100, max_in_flight=5000
    )
    now = BulkOperation.objects.filter(pk=operation.pk)
    now.update(release_at=_before(1))
    pacer.tick()
    found = []
    for wanted in (20, 500):
        control.change_pace(operation.pk, rate=float(wanted))
        seconds, before = [], now.get().released
        for _ in range(runs):
            now.update(paced_at=_before(1))
            seconds.append(timed(pacer.tick)[0])
        released = (now.get().released - before) / runs
        found.append(Figure(f"a tick that releases {released:.0f} letters of {operation.total:,}", seconds))
    found.append(Figure("a tick that releases none", [timed(pacer.tick)[0] for _ in range(runs)]))
    control.cancel(operation.pk)
    BulkItem.objects.filter(operation_id=operation.pk).delete()
    now.delete()
    return found


def fold(*, runs: int) -> list[Figure]:
    """Tallies that wait, counted and forgotten again."""
    from django.db import connection

    from apps.dead_letters import tallies

    found = []
    for words, condition in (("of groups at work", "state NOT IN ('resolved', 'snoozed')"), ("of all groups", "true")):
        seconds = []
        for _ in range(runs):
            with _undone():
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"""
                        INSERT INTO dead_letters_grouptally (group_id, project_id, api_key_id, died, opened)
                        SELECT g.fingerprint, k.project_id, k.id, 1, 1 FROM generate_series(1, %s) AS n
                        JOIN (SELECT fingerprint, row_number() OVER () - 1 AS n, count(*) OVER () AS all_of_them
                              FROM dead_letters_failuregroup WHERE {condition}) g ON g.n = n.n %% g.all_of_them
                        JOIN (SELECT *, row_number() OVER () - 1 AS n FROM access_apikey) k ON k.n = n.n * 7 %% 40
                        """,
                        [tallies.BATCH],
                    )
                took, groups = timed(tallies.fold)
                seconds.append(took)
        found.append(Figure(f"20,000 tallies {words} ({groups:,}) are folded", seconds))
    return found


def alerts(*, runs: int) -> list[Figure]:
    """The chores that watch for what people are told of, where there are any."""
    from apps.core import clock

    found = []
    for chore in clock.chores():
        if chore.name.startswith("alert"):
            seconds = []
            for _ in range(runs):
                with _undone():
                    seconds.append(timed(chore.work)[0])
            found.append(Figure(f"the chore `{chore.name}`", seconds))
    return found


def table(figures: list[Figure]) -> str:
    """Milliseconds of each."""
    rows = []
    for one in figures:
        verdict = "-" if one.bar is None else "met" if max(one.seconds) <= one.bar else "MISSED"
        bar = "-" if one.bar is None else f"<= {one.bar * 1e3:,.0f} ms: {verdict}"
        rows.append(
            [one.name, number(median(one.seconds) * 1e3), number(max(one.seconds) * 1e3), str(len(one.seconds)), bar]
        )
    return markdown(["what", "median ms", "max ms", "times", "bar"], rows)


@contextmanager
def _undone() -> Any:
    from django.db import transaction

    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _cancel_all(control: Any, operations: Any) -> None:
    for operation in operations.objects.exclude(state__in=("done", "cancelled")):
        control.cancel(operation.pk)


def _before(seconds: float) -> Any:
    from django.db.models.functions import Now

    return Now() - timedelta(seconds=seconds)
