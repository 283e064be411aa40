"""Dead letters and the groups of failures with one fingerprint."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.access.models import ApiKey, Project
from apps.core.ids import new_uuid
from apps.dead_letters import states
from apps.tasks.models import shown_id


class FailureGroup(models.Model):
    """Letters with one fingerprint. Written once when it first appears; no outage makes its row hot."""

    fingerprint = models.CharField(max_length=64, primary_key=True)
    kind = models.CharField(max_length=64)
    queue = models.CharField(max_length=16)
    upstream = models.CharField(max_length=200, blank=True)
    code = models.CharField(max_length=64)
    message = models.TextField(help_text="As of the first letter, normalised.")
    first_seen = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["-first_seen", "-fingerprint"], name="group_newest_first")]

    def __str__(self) -> str:
        return " · ".join(filter(None, (self.code, self.upstream, self.kind)))


class DeadLetter(models.Model):
    """One cycle of a task that has failed for good, until a person decides."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    task_id = models.UUIDField()
    cycle = models.PositiveSmallIntegerField()
    group = models.ForeignKey(
        FailureGroup, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="letters"
    )
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, verbose_name="API key"
    )
    kind = models.CharField(max_length=64)
    queue = models.CharField(max_length=16)
    state = models.CharField(max_length=16, choices=[(state, state) for state in states.ALL], default=states.OPEN)
    code = models.CharField(max_length=64)
    attempts = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)
    reason = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task_id", "cycle"], name="letter_of_a_cycle_once"),
            models.UniqueConstraint(fields=["task_id"], condition=Q(state=states.OPEN), name="letter_open_once"),
            models.CheckConstraint(name="letter_state_is_known", condition=Q(state__in=states.ALL)),
            models.CheckConstraint(
                name="letter_is_decided_exactly_with_a_time",
                condition=Q(state=states.OPEN, decided_at__isnull=True)
                | (~Q(state=states.OPEN) & Q(decided_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="letter_newest_first"),
            models.Index(fields=["group", "-created_at"], name="letter_of_a_group"),
            models.Index(fields=["created_at"], name="letter_open", condition=Q(state=states.OPEN)),
            models.Index(fields=["decided_at"], name="letter_decided", condition=~Q(state=states.OPEN)),
        ]

    def __str__(self) -> str:
        return f"letter of {shown_id(self.task_id)}"
