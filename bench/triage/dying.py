"""How long a batch of deaths takes to be taken in beside a million letters, compared with empty tables."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from uuid import uuid4

from bench.report import markdown, number

BATCH = 500
Seconds = dict[str, list[float]]


def measure(empty: str, *, runs: int) -> dict[str, Seconds]:
    """Of an outage (3 groups) and of 500 causes: the seconds in each database by turns. empty: the other's name."""
    found: dict[str, Seconds] = {}
    for words, causes in (("an outage: 3 causes", 3), (f"{BATCH} causes", BATCH)):
        seconds: Seconds = {"full": [], "empty": []}
        for run in range(runs + 1):
            for place in ("full", "empty") if run % 2 else ("empty", "full"):
                with database(empty if place == "empty" else ""):
                    took = _once(_deaths(causes))
                if run:  # the first looks make connections and plans
                    seconds[place].append(took)
        found[words] = seconds
    return found


def _once(deaths: list[Any]) -> float:
    """Take them in, committed; then leave everything as it was."""
    from django.db import connection, transaction

    from apps.dead_letters import intake

    began = time.perf_counter()
    with transaction.atomic():
        intake.receive(deaths)
    took = time.perf_counter() - began
    groups = sorted({death.fingerprint for death in deaths})
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM dead_letters_deadletter WHERE task_id = ANY(%s)", [[one.task_id for one in deaths]])
        cursor.execute("DELETE FROM dead_letters_grouptally WHERE group_id = ANY(%s)", [groups])
        cursor.execute("DELETE FROM dead_letters_failuregroup WHERE fingerprint = ANY(%s)", [groups])
    return took


def _deaths(causes: int) -> list[Any]:
    from apps.core.ids import new_uuid
    from apps.tasks.signals import Death

    keys = [(uuid4(), uuid4()) for _ in range(20)]
    run = uuid4().hex
    return [
        Death(
            task_id=new_uuid(),
            project_id=keys[place % 20][0],
            api_key_id=keys[place % 20][1],
            kind="chat_completion",
            queue="default",
            cycle=1,
            attempt=4,
            fingerprint=f"{run}{place % causes:032d}",
            upstream="openai/gpt-4o",
            error={
                "code": "model_error",
                "message": f"Upstream request req_{uuid4().hex} failed after 1.52s: 503 from https://api.example.com/v1",
            },
            status=503,
        )
        for place in range(BATCH)
    ]


@contextmanager
def database(name: str) -> Iterator[None]:
    """Let Django's default connection be one to another database of the server; without a name to its own."""
    from django.db import connections

    if not name:
        yield
        return
    connections.settings.setdefault(name, {**connections.settings["default"], "NAME": name})
    own = connections["default"]
    connections["default"] = connections[name]
    try:
        yield
    finally:
        connections["default"] = own


def table(found: dict[str, Seconds]) -> str:
    """Milliseconds in both, and how many times as long it takes beside the letters."""
    rows = []
    for words, seconds in found.items():
        full, empty = seconds["full"], seconds["empty"]
        ratios = [mine / theirs for mine, theirs in zip(full, empty, strict=True)]
        rows.append([words, number(median(empty) * 1e3, 1), number(median(full) * 1e3, 1), f"{median(ratios):.2f}"])
    return markdown([f"{BATCH} deaths", "empty, ms", "beside the letters, ms", "ratio"], rows)
