"""What somebody has decided about the demo's failures already: redrives that helped, discards, a note, a snooze."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random

from django.db import transaction

from apps.core import clock
from apps.dead_letters import group_states, grouping, tallies, triage
from apps.dead_letters.demo.failures import OUT_OF_MEMORY, OVERLOADED, REFUSED_KEY, TOO_LONG, Cause
from apps.dead_letters.demo.making import Maker
from apps.dead_letters.demo.works import Try, Work
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks import states

MOST = 100  # letters of one cause
SNOOZED_FOR = 50  # failures more
NOTE = "Our key was replaced at the provider and not here. Redrive when the new one is in the admin."


def decide(maker: Maker, works: Sequence[Work], rng: Random) -> None:
    """Decide a little, as people do."""
    overloaded, no_memory = _of(works, OVERLOADED), _of(works, OUT_OF_MEMORY)
    _redrive(maker, overloaded, rng, reason="the provider has recovered")
    _redrive(maker, no_memory[: max(1, len(no_memory) // 3)], rng, reason="a smaller batch size is set")
    too_long = _of(works, TOO_LONG)
    for letter in DeadLetter.objects.filter(task_id__in=[work.id for work in too_long[: len(too_long) // 6]]):
        triage.discard(letter.pk, reason="nobody will shorten it", code=DeadLetter.DiscardCode.BAD_INPUT)
    count()
    _work_on_groups(_of(works, REFUSED_KEY), too_long)


@transaction.atomic
def count() -> None:
    """Count what has happened, as the clock does, whether one ticks or not."""
    clock.keep_off("letters")
    while tallies.fold():
        pass


def _of(works: Sequence[Work], cause: Cause) -> list[Work]:
    return [work for work in works if work.state == states.DEAD and work.tries[-1].cause is cause][:MOST]


@transaction.atomic
def _redrive(maker: Maker, works: Sequence[Work], rng: Random, *, reason: str) -> None:
    if not works:
        return
    again = max(work.finished for work in works) + timedelta(minutes=20)
    letters = DeadLetter.objects.filter(task_id__in=[work.id for work in works])
    for letter in letters.order_by("task_id"):
        triage.redrive(letter.pk, reason=reason)
    tries = []
    for number in range(len(works)):
        started = again + timedelta(seconds=number / 2)
        tries.append(Try(started, started + timedelta(seconds=rng.uniform(0.4, 3.0))))
    maker.redrive(works, tries)


def _work_on_groups(refused: Sequence[Work], too_long: Sequence[Work]) -> None:
    if (group := _own_group(refused)) is not None:
        grouping.note(group.pk, text=NOTE)
    if (group := _own_group(too_long)) is not None and group.state == group_states.FOR_REVIEW:
        grouping.snooze(group.pk, more=SNOOZED_FOR, reason="the client was told")


def _own_group(works: Sequence[Work]) -> FailureGroup | None:
    """The group of these deaths, unless others' tasks have died into it too."""
    letter = DeadLetter.objects.filter(task_id__in=[work.id for work in works]).first()
    if letter is None or DeadLetter.objects.filter(group=letter.group_id).exclude(project=letter.project_id).exists():
        return None
    return FailureGroup.objects.get(pk=letter.group_id)
