"""Rings wake workers soon, are few, and never stand in anybody's way."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from structlog.testing import capture_logs

from apps.tasks import doorbell
from apps.tasks.doorbell import RINGS, WAKE, Doorbell
from apps.tasks.enqueue import ring_after_commit
from tests.stores import NOBODY_LISTENS
from tests.tasks.conftest import MakeTask


class Post:
    """Keeps what is given to Celery. hold: sending waits until it is set. fail: sending raises."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self.hold: threading.Event | None = None
        self.fail = False
        self.began = threading.Semaphore(0)

    def __call__(self, name: str, *, args: list[list[str]], **options: Any) -> None:
        assert name == WAKE
        self.sent.append(args[0])
        self.options.append(options)
        self.began.release()
        if self.hold is not None:
            assert self.hold.wait(10)
        if self.fail:
            raise ConnectionError("nobody there")

    def wait(self) -> None:
        """Return once another message was given."""
        assert self.began.acquire(timeout=5)

    @property
    def is_quiet(self) -> bool:
        """Whether none comes for a while."""
        return not self.began.acquire(timeout=0.1)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    """What stands for Celery's sending; the broker's own behaviour has tests of its own below."""
    made = Post()
    monkeypatch.setattr(current_app, "send_task", made)
    yield made
    if made.hold is not None:
        made.hold.set()


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorbell]:
    """The process's bell, that rings no more once the test is over."""
    made = Doorbell()
    monkeypatch.setattr(doorbell, "_doorbell", made)
    yield made
    made._quiet_until = float("inf")


def test_a_ring_is_sent_with_the_queues_and_expires(post: Post, bell: Doorbell) -> None:
    bell.ring(["low", "high"])
    post.wait()
    assert post.sent == [["high", "low"]]
    assert post.options == [{"queue": RINGS, "ignore_result": True, "retry": False, "expires": doorbell.EXPIRES}]


def test_rings_that_come_while_one_is_sent_go_as_one(post: Post, bell: Doorbell) -> None:
    post.hold = threading.Event()
    bell.ring(["high"])
    post.wait()
    for number in range(1000):
        bell.ring([("low", "default")[number % 2]])
    post.hold.set()
    post.wait()
    assert post.is_quiet
    assert post.sent == [["high"], ["default", "low"]]


def test_a_ring_never_waits_for_the_broker(post: Post, bell: Doorbell) -> None:
    post.hold = threading.Event()
    bell.ring(["high"])
    post.wait()
    began = time.monotonic()
    for _ in range(1000):
        bell.ring(["low"])
    assert time.monotonic() - began < 1
    assert post.sent == [["high"]]  # it still hangs


def test_after_a_failure_the_bell_is_quiet_for_a_while_and_then_rings_again(
    post: Post, bell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "QUIET", 1.0)
    post.fail = True
    with capture_logs() as logs:
        bell.ring(["high"])
        post.wait()
        until(lambda: bool(logs))
        bell.ring(["low"])
        assert post.is_quiet
    assert [(line["event"], line["error"]) for line in logs] == [("ring_lost", "ConnectionError")]
    post.fail = False
    until(lambda: (bell.ring(["default"]), not post.is_quiet)[1])
    assert post.sent[1] == ["default"]  # what was rung for meanwhile, the clock rings for


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not there():
        assert time.monotonic() < deadline


def test_a_broker_that_is_away_is_no_error_for_who_rings(bell: Doorbell, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()
    monkeypatch.setattr(doorbell.log, "warning", lambda event, **_: lost.set() if event == "ring_lost" else None)
    send = current_app.send_task

    def nowhere(*args: Any, **options: Any) -> Any:
        with current_app.connection_for_write(NOBODY_LISTENS) as there:
            return send(*args, **options, connection=there)

    monkeypatch.setattr(current_app, "send_task", nowhere)
    bell.ring(["high"])
    assert lost.wait(10)


@pytest.mark.django_db(transaction=True)
def test_rings_wait_for_the_commit(post: Post, bell: Doorbell, make_task: MakeTask) -> None:
    with transaction.atomic():
        ring_after_commit(["low"])
        assert post.is_quiet
    post.wait()
    assert post.sent == [["low"]]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_does_not_ring(post: Post, bell: Doorbell) -> None:
    with transaction.atomic():
        ring_after_commit(["low"])
        transaction.set_rollback(True)
    assert post.is_quiet


def test_for_no_queue_nobody_is_rung(post: Post, bell: Doorbell) -> None:
    doorbell.ring([])
    assert bell._thread is None
