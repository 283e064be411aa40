"""Tasks that harm whoever runs them: they end with a letter, and their neighbours are done."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from apps.tasks.presence import EXIT_STUCK
from tests.faults.crew import Crew, accept
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client


@contextmanager
def kept(crew: Crew, *options: str) -> Iterator[list[int]]:
    """A worker that is started again whenever it ends, as `up` does; the exit codes so far."""
    codes: list[int] = []
    over = threading.Event()

    def keep() -> None:
        worker = crew.worker(*options, ready=False)
        while not over.wait(0.02):
            if not worker.lives:
                codes.append(worker.end(None))
                worker = crew.worker(*options, ready=False)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


def test_a_task_that_kills_every_worker_dies_alone(crew: Crew, stores: Stores, plain: Client, mine: Set) -> None:
    tasks = accept(plain, mine.model, 20)
    [poison] = crew.become(tasks[7:8], "abort")
    with kept(crew) as codes, kept(crew, "--queue", "quarantine"):
        rows = crew.until([poison], "dead", within=60)
        crew.until([task for task in tasks if task != poison], "succeeded")
    assert rows[poison] == ("dead", 5, 5, 0)
    assert len(codes) == 3  # the fourth and the fifth time it was in quarantine
    assert set(crew.outcomes(poison)) == {"worker_lost"}
    assert stores.query("SELECT code, state FROM dead_letters_deadletter WHERE task_id = %s", poison) == [
        ("worker_lost", "open")
    ]


def test_a_task_that_holds_the_loop_costs_its_worker_and_is_tried_again(crew: Crew, plain: Client, mine: Set) -> None:
    tasks = accept(plain, mine.model, 10)
    [looping] = crew.become(tasks[3:4], "loop_once")
    worker = crew.worker(ready=False)
    assert worker.end(None) == EXIT_STUCK
    crew.worker()
    rows = crew.until(tasks, "succeeded")
    assert rows[looping] == ("succeeded", 2, 1, 0)


@pytest.mark.parametrize("kind", ["devour", "leave", "cancel_itself"])
def test_a_handler_that_breaks_the_rules_is_a_bug_and_no_more(
    crew: Crew, stores: Stores, plain: Client, mine: Set, kind: str
) -> None:
    tasks = accept(plain, mine.model, 10)
    [odd] = crew.become(tasks[3:4], kind)
    worker = crew.worker()
    rows = crew.until([odd], "dead")
    assert rows[odd] == ("dead", 2, 0, 2), worker.log.read_text()
    neighbours = crew.until([task for task in tasks if task != odd], "succeeded")
    assert set(neighbours.values()) == {("succeeded", 1, 0, 0)}
    assert worker.lives


def test_rows_that_this_code_cannot_read_die_and_say_so(crew: Crew, stores: Stores, plain: Client, mine: Set) -> None:
    tasks = accept(plain, mine.model, 23)
    [removed] = crew.become(tasks[0:1], "removed_kind")
    stores.query("UPDATE tasks_task SET schema_version = 99 WHERE id = %s", tasks[1])
    stores.query("UPDATE tasks_taskpayload SET body = '{oops' WHERE task_id = %s", tasks[2])
    crew.worker()
    crew.until(tasks[:3], "dead")
    crew.until(tasks[3:], "succeeded")
    letters = dict(stores.query("SELECT task_id, code FROM dead_letters_deadletter WHERE task_id = ANY(%s)", tasks[:3]))
    assert (letters[removed], letters[tasks[1]]) == ("unknown_kind", "unknown_kind")
    assert tasks[2] in letters
