"""The sentence at the top of a letter and of a group says what broke, how often, and whether it still does."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.completions.models import LedgerEntry
from apps.core.errors import InvalidRequest, ServiceUnavailable
from apps.dead_letters import tallies, triage, verdict
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.dead_letters.spans import ago, span
from apps.providers.errors import UpstreamBroken
from apps.tasks.models import TaskAttempt
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter
from tests.tasks.conftest import MakeKind

pytestmark = pytest.mark.django_db


def of(letter: DeadLetter) -> str:
    """Its verdict as the page has it."""
    tallies.fold()
    attempts = list(TaskAttempt.objects.filter(task_id=letter.task_id, cycle=letter.cycle).order_by("number"))
    return verdict.of_letter(letter, FailureGroup.objects.filter(pk=letter.group_id).first(), attempts)


@pytest.fixture
def call(make_key: MakeKey) -> object:
    """Book a call to p/m so many minutes ago."""
    key, _ = make_key()

    def book(outcome: str, minutes: int) -> None:
        LedgerEntry.objects.create(
            created_at=timezone.now() - timedelta(minutes=minutes), request_id="r", project_id=key.project_id,
            api_key=key, operation="chat/completions", model="m", provider="p", upstream_model="m", attempt=1,
            stream=False, outcome=outcome, input_tokens=1, cached_tokens=0, output_tokens=1, cost_nusd=1,
            estimated=False, latency_ms=1, elapsed_ms=1,
        )  # fmt: skip

    return book


def test_a_letter_says_what_was_tried_what_was_said_and_how_many_are_like_it(
    make_letter: MakeLetter, make_kind: MakeKind
) -> None:
    kind = make_kind()
    letters = [make_letter(kind=kind, error=UpstreamBroken("Overloaded"), upstream="p/m") for _ in range(3)]
    said = of(letters[0])
    assert said.startswith("Died after one attempt in ")
    assert "upstream said 502; 2 others like it open; this provider was not called lately." in said
    triage.discard(letters[1].pk, reason="r")
    triage.discard(letters[2].pk, reason="r")
    assert "no other like it open" in of(letters[0])


def test_several_attempts_are_counted_from_the_first_to_the_last(make_letter: MakeLetter) -> None:
    letter = make_letter()
    row = TaskAttempt.objects.get(task_id=letter.task_id)
    early = row.started_at - timedelta(minutes=3)
    TaskAttempt.objects.create(
        task_id=letter.task_id, number=99, cycle=1, token=1, worker=row.worker, started_at=early, outcome="failed",
        charged=True, error_code="model_error",
    )  # fmt: skip
    TaskAttempt.objects.filter(task_id=letter.task_id, number=row.number).update(started_at=early)
    assert of(letter).startswith("Died after 2 attempts in 3 min")


def test_whether_the_provider_answers_again_is_read_from_the_newest_calls(
    make_letter: MakeLetter, call: object
) -> None:
    letter = make_letter(error=UpstreamBroken("Overloaded"), upstream="p/m")
    assert callable(call)
    call("succeeded", 50)
    assert "has been healthy since" in of(letter)
    call("failed", 40)
    assert "this provider last failed 40 min ago, and no call of it has succeeded since" in of(letter)
    call("succeeded", 30)
    call("succeeded", 20)
    call("cancelled", 10)
    since = timezone.now() - timedelta(minutes=30)
    assert f"healthy since {since:%H:%M}" in of(letter) or f"healthy since {since:%Y-%m-%d %H:%M}" in of(letter)


def test_a_lost_worker_a_timeout_and_a_death_without_an_attempt_are_told_apart(make_letter: MakeLetter) -> None:
    letter = make_letter(error=ServiceUnavailable("No provider"))
    assert "it failed with service_unavailable" in of(letter)
    rows = TaskAttempt.objects.filter(task_id=letter.task_id)
    rows.update(outcome="worker_lost")
    assert "the call may have run twice" in of(letter)
    rows.update(outcome="timed_out")
    assert "it took longer than it may" in of(letter)
    rows.delete()
    assert "its attempts are gone" in of(letter)
    DeadLetter.objects.filter(pk=letter.pk).update(attempts=0)
    letter.refresh_from_db()
    assert "before anything was tried" in of(letter)


def test_a_group_says_how_often_since_when_whom_and_what_redrives_did(
    make_letter: MakeLetter, make_key: MakeKey
) -> None:
    key, _ = make_key()
    letter = make_letter(project_id=key.project_id, api_key_id=key.pk)
    triage.redrive(letter.pk)
    tallies.fold()
    said = verdict.of_group(FailureGroup.objects.get(pk=letter.group_id))
    assert f"{letter.kind} failed with validation_error: 1 time since " in said
    assert "1 API key hit; 0 of 1 redriven succeeded." in said
    other = make_letter(error=InvalidRequest("x"), upstream="p/m")
    tallies.fold()
    assert "p/m answered 400: 1 time since" in verdict.of_group(FailureGroup.objects.get(pk=other.group_id))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than a second"), (1, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"),
     (172_799, "47 h"), (172_800, "2 days"), (-5, "less than a second")],
)  # fmt: skip
def test_a_span_is_told_in_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == span(timedelta(seconds=seconds)) == words


def test_what_has_just_happened_is_not_zero_seconds_ago() -> None:
    assert ago(timezone.now()) == "just now"
    assert ago(timezone.now() - timedelta(hours=5)) == "5 h ago"
