"""Failure groups: letters with one fingerprint, their counts, and whom they hurt."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.dead_letters import group_states


class FailureGroup(models.Model):
    """Letters with one fingerprint. Counts are folded in by the clock, so that no outage makes its row hot."""

    fingerprint = models.CharField(max_length=64, primary_key=True)
    version = models.PositiveSmallIntegerField(db_default=1, help_text="Of the fingerprint; never computed anew.")
    kind = models.CharField(max_length=64)
    queue = models.CharField(max_length=16)
    upstream = models.CharField(max_length=200, blank=True)
    code = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True, help_text="The provider's HTTP status, or our own.")
    message = models.TextField(help_text="As of the first letter, normalised.")
    first_seen = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())

    state = models.CharField(
        max_length=16,
        choices=[(state, group_states.WORDS[state]) for state in group_states.ALL],
        db_default=group_states.FOR_REVIEW,
    )
    state_changed_at = models.DateTimeField(db_default=Now())
    snoozed_until = models.DateTimeField(null=True)
    snooze_after = models.BigIntegerField(null=True, help_text="Deaths, counted from the first, that end the snooze.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    note = models.TextField(blank=True, db_default="")

    died_count = models.BigIntegerField(db_default=0, help_text="Letters since it was first seen.")
    open_count = models.BigIntegerField(db_default=0)
    redriven_count = models.BigIntegerField(db_default=0)
    succeeded_count = models.BigIntegerField(db_default=0, help_text="Redriven and succeeded.")
    failed_count = models.BigIntegerField(db_default=0, help_text="Redriven and dead again.")
    cancelled_count = models.BigIntegerField(db_default=0, help_text="Redriven and cancelled.")
    discarded_count = models.BigIntegerField(db_default=0)
    key_count = models.BigIntegerField(db_default=0, help_text="API keys that were hit.")

    class Meta:
        verbose_name = "failure group"
        permissions = [("hold_failuregroup", "Can hold and release a failure group's retries")]
        constraints = [
            models.CheckConstraint(name="group_state_is_known", condition=Q(state__in=group_states.ALL)),
            models.CheckConstraint(
                name="group_is_snoozed_exactly_with_an_end",
                condition=(
                    Q(state=group_states.SNOOZED) & (Q(snoozed_until__isnull=False) | Q(snooze_after__isnull=False))
                )
                | (~Q(state=group_states.SNOOZED) & Q(snoozed_until__isnull=True, snooze_after__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(fields=["-last_seen", "-fingerprint"], name="group_last_seen_first"),
            models.Index(fields=["state", "-last_seen", "-fingerprint"], name="group_of_a_state"),
            models.Index(fields=["first_seen"], name="group_first_seen"),
        ]

    def __str__(self) -> str:
        code = f"{self.code} {self.status}" if self.status else self.code
        return " · ".join(filter(None, (code, self.upstream, self.kind)))

    @property
    def running_count(self) -> int:
        """Redriven tasks that have not ended."""
        return self.redriven_count - self.succeeded_count - self.failed_count - self.cancelled_count


class GroupTally(models.Model):
    """What a transaction adds to the counts of a group; only ever inserted, until the clock folds it in."""

    id = models.BigAutoField(primary_key=True)
    group_id = models.CharField(max_length=64)
    at = models.DateTimeField(db_default=Now())
    project_id = models.UUIDField(null=True)
    api_key_id = models.UUIDField(null=True)
    died = models.IntegerField(db_default=0)
    opened = models.IntegerField(db_default=0, help_text="Change of the open letters.")
    redriven = models.IntegerField(db_default=0)
    succeeded = models.IntegerField(db_default=0)
    failed = models.IntegerField(db_default=0)
    cancelled = models.IntegerField(db_default=0)
    discarded = models.IntegerField(db_default=0)

    def __str__(self) -> str:
        return f"tally of {self.group_id[:8]}"


class GroupHour(models.Model):
    """How many letters a group got in one hour."""

    pk = models.CompositePrimaryKey("group_id", "hour")
    group_id = models.CharField(max_length=64)
    hour = models.DateTimeField(db_index=True)
    died = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.died} in {self.hour}"


class GroupKey(models.Model):
    """How often a group has hit one API key. A key of zeros stands for tasks that have none."""

    pk = models.CompositePrimaryKey("group_id", "project_id", "api_key_id")
    group_id = models.CharField(max_length=64)
    project_id = models.UUIDField()
    api_key_id = models.UUIDField()
    died = models.BigIntegerField()
    last_seen = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.died} of {self.api_key_id}"
