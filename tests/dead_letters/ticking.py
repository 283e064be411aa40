"""A clock of the test's own beside a command that waits for one: a thread that counts, skips holds, and ends tasks."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from django.db import connections
from django.utils import timezone

from apps.core import clock
from apps.core.errors import InvalidRequest
from apps.dead_letters import tallies
from apps.dead_letters.bulk import pacer
from apps.dead_letters.models import BulkOperation, DeadLetter
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.tasks.conftest import ending, take_all

EACH = 0.05  # seconds


def tick() -> None:
    """What the clock does of letters, once, with its beats."""
    clock.do(clock.Chore("letters", 1.0, tallies.fold), "test")
    clock.do(clock.Chore("bulk", pacer.EVERY, pacer.tick), "test")


def end_holds() -> None:
    """As if the seconds of every hold had passed."""
    past = timezone.now() - timedelta(seconds=1)
    BulkOperation.objects.filter(state="holding", release_at__gt=past).update(release_at=past)


def ender(letters: Sequence[DeadLetter], *, dead: int = 0) -> Callable[[], None]:
    """Ends what of these letters was redriven meanwhile, the first `dead` of each look with another death."""

    def act() -> None:
        redriven = Task.objects.filter(pk__in=[letter.task_id for letter in letters], state="pending")
        if tasks := list(redriven.order_by("pk")):
            claimed = take_all(tasks)
            failure = failure_of(InvalidRequest("It does not fit."), kind=tasks[0].kind, upstream="")
            died = [ending(one, "dead", "failed", charged=True, failure=failure) for one in claimed[:dead]]
            finish(died + [ending(one) for one in claimed[dead:]])

    return act


@contextmanager
def ticking(*also: Callable[[], None]) -> Iterator[None]:
    """Tick until the block is left, each time after having done `also`. What fails in the thread fails the test."""
    stopped, errors = threading.Event(), []

    def run() -> None:
        try:
            while not stopped.wait(EACH):
                for act in (*also, tick):
                    act()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)
    assert errors == []
