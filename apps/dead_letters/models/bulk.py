"""Bulk operations: one decision about many letters, made at a pace."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.core.ids import new_uuid
from apps.dead_letters import bulk_states
from apps.dead_letters.models.letters import DeadLetter


class BulkOperation(models.Model):
    """A redrive, discard or restore of all letters that matched when it was made. The clock runs it.

    groups, query, source: what matched, all at once; `query` in the words of `search`, `source` an operation whose
    discards are restored. started_by, actor_id: in whose name it decides: who started it, or resumed it last.
    resumes_in: also of a stop for want of somebody who may; empty after any other. Counts are of its items.
    """

    class Action(models.TextChoices):
        REDRIVE = "redrive"
        DISCARD = "discard"
        RESTORE = "restore"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    action = models.CharField(max_length=8, choices=Action.choices)
    state = models.CharField(
        max_length=16, choices=[(state, state) for state in bulk_states.ALL], default=bulk_states.COUNTING
    )
    groups: "ArrayField[Any, Any]" = ArrayField(models.CharField(max_length=64), default=list)
    query = models.TextField(blank=True)
    source = models.UUIDField(null=True)
    title = models.CharField(max_length=300)
    reason = models.TextField(blank=True)
    discard_code = models.CharField(max_length=16, choices=DeadLetter.DiscardCode.choices, blank=True)
    created_by = models.CharField(max_length=150)
    actor_id = models.IntegerField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    rate = models.FloatField(default=20.0, help_text="Letters a second.")
    max_in_flight = models.PositiveIntegerField(default=100, help_text="Redriven tasks that may be unfinished at once.")
    canary = models.PositiveIntegerField(default=0, help_text="Letters that must succeed before the others go.")
    stop_percent = models.PositiveSmallIntegerField(default=20, help_text="Failures again at which it stops by itself.")

    counted_to = models.UUIDField(null=True, help_text="The last letter that was looked at while counting.")
    counted_at = models.DateTimeField(null=True)
    breakdown: "models.JSONField[Any, Any]" = models.JSONField(default=dict)
    cost_nusd = models.BigIntegerField(null=True, help_text="Estimated, in nano-USD.")
    started_at = models.DateTimeField(null=True)
    started_by = models.CharField(max_length=150, blank=True)
    release_at = models.DateTimeField(null=True, help_text="The end of the hold.")
    paced_at = models.DateTimeField(null=True, help_text="When items were last released.")
    resumes_in = models.CharField(max_length=16, blank=True, help_text="The state that a pause interrupted.")
    stop_reason = models.TextField(blank=True)
    finished_at = models.DateTimeField(null=True)

    total = models.IntegerField(default=0)
    skipped = models.IntegerField(default=0)
    released = models.IntegerField(default=0)
    succeeded = models.IntegerField(default=0)
    failed = models.IntegerField(default=0, help_text="Dead again.")
    cancelled = models.IntegerField(default=0)
    judged_from = models.IntegerField(default=0, help_text="Ended items that a person has let pass by going on.")
    judged_failed = models.IntegerField(default=0, help_text="Of these, those that had failed.")

    class Meta:
        verbose_name = "bulk operation"
        permissions = [
            ("redrive_bulkoperation", "Can redrive groups and other sets of letters"),
            ("discard_bulkoperation", "Can discard and restore groups and other sets of letters"),
        ]
        constraints = [
            models.CheckConstraint(name="bulk_state_is_known", condition=Q(state__in=bulk_states.ALL)),
            models.CheckConstraint(
                name="bulk_is_final_exactly_with_an_end",
                condition=Q(state__in=bulk_states.FINAL, finished_at__isnull=False)
                | (Q(state__in=bulk_states.ACTIVE) & Q(finished_at__isnull=True)),
            ),
            models.CheckConstraint(name="bulk_has_a_pace", condition=Q(rate__gt=0, max_in_flight__gt=0)),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="bulk_newest_first"),
            models.Index(fields=["id"], name="bulk_active", condition=Q(state__in=bulk_states.ACTIVE)),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.state in bulk_states.ACTIVE

    @property
    def pending(self) -> int:
        """Items that are still to be released."""
        return self.total - self.skipped - self.released

    @property
    def ended(self) -> int:
        """Released items whose tasks have ended again."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def in_flight(self) -> int:
        """Released items whose tasks have not ended again; of a discard none."""
        return self.released - self.ended if self.action == self.Action.REDRIVE else 0


class BulkItem(models.Model):
    """One letter of an operation, frozen when it was counted."""

    pk = models.CompositePrimaryKey("operation_id", "letter_id")
    operation_id = models.UUIDField()
    letter_id = models.UUIDField()
    task_id = models.UUIDField()
    cycle = models.PositiveSmallIntegerField()
    group_id = models.CharField(max_length=64)
    state = models.CharField(max_length=8, choices=[(state, state) for state in bulk_states.ITEM_STATES])
    cause = models.CharField(max_length=64, blank=True, help_text="Why it was skipped.")
    outcome = models.CharField(max_length=16, blank=True, help_text="How the redriven task ended.")

    class Meta:
        indexes = [
            models.Index(
                fields=["operation_id", "letter_id"], name="item_pending", condition=Q(state=bulk_states.PENDING)
            ),
            models.Index(
                fields=["operation_id", "letter_id"],
                name="item_in_flight",
                condition=Q(state=bulk_states.RELEASED, outcome=""),
            ),
            models.Index(fields=["operation_id", "outcome"], name="item_ended", condition=~Q(outcome="")),
            models.Index(fields=["operation_id"], name="item_skipped", condition=Q(state=bulk_states.SKIPPED)),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.letter_id}"


class BulkSlot(models.Model):
    """The right of an operation to a group: nobody else's operation works on it until this one has ended."""

    group_id = models.CharField(max_length=64, primary_key=True)
    operation_id = models.UUIDField(db_index=True)

    def __str__(self) -> str:
        return self.group_id
