"""Dead letters: one for each death of a task."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.access.models import ApiKey, Project
from apps.core.ids import new_uuid
from apps.dead_letters import states
from apps.dead_letters.models.groups import FailureGroup
from apps.tasks import states as task_states
from apps.tasks.models import shown_id


class DeadLetter(models.Model):
    """One cycle of a task that has failed for good, until a person decides."""

    class DiscardCode(models.TextChoices):
        NOT_NEEDED = "not_needed", "Not needed any more"
        DUPLICATE = "duplicate", "Done by another task"
        BAD_INPUT = "bad_input", "The request cannot succeed"
        TOO_LATE = "too_late", "Too late to be of use"
        TEST = "test", "A test"
        OTHER = "other", "Another reason"

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
    reviewed_at = models.DateTimeField(null=True, help_text="When a person or a script first looked at it.")

    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)
    reason = models.TextField(blank=True)
    discard_code = models.CharField(max_length=16, choices=DiscardCode.choices, blank=True, db_default="")
    operation_id = models.UUIDField(null=True, help_text="The bulk operation that decided it.")
    outcome = models.CharField(
        max_length=16,
        choices=[(state, state) for state in task_states.FINAL],
        blank=True,
        db_default="",
        help_text="How the redriven task ended.",
    )

    class Meta:
        permissions = [
            ("redrive_deadletter", "Can redrive single dead letters"),
            ("discard_deadletter", "Can discard and restore dead letters"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["task_id", "cycle"], name="letter_of_a_cycle_once"),
            models.UniqueConstraint(fields=["task_id"], condition=Q(state=states.OPEN), name="letter_open_once"),
            models.CheckConstraint(name="letter_state_is_known", condition=Q(state__in=states.ALL)),
            models.CheckConstraint(
                name="letter_is_decided_exactly_with_a_time",
                condition=Q(state=states.OPEN, decided_at__isnull=True)
                | (~Q(state=states.OPEN) & Q(decided_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="letter_that_was_redriven_alone_has_an_outcome",
                condition=Q(outcome="") | (Q(state=states.REDRIVEN) & Q(outcome__in=task_states.FINAL)),
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="letter_newest_first"),
            models.Index(fields=["group", "-created_at", "-id"], name="letter_of_a_group"),
            models.Index(fields=["group", "id"], name="letter_open_of_a_group", condition=Q(state=states.OPEN)),
            models.Index(fields=["created_at", "id"], name="letter_open", condition=Q(state=states.OPEN)),
            models.Index(
                fields=["created_at", "id"],
                name="letter_to_review",
                condition=Q(state=states.OPEN, reviewed_at__isnull=True),
            ),
            models.Index(fields=["decided_at"], name="letter_decided", condition=~Q(state=states.OPEN)),
            # Most are open, and the newest of all: a list of the others must not have to pass them.
            models.Index(
                fields=["state", "-created_at", "-id"], name="letter_decided_newest", condition=~Q(state=states.OPEN)
            ),
            models.Index(
                fields=["operation_id", "id"], name="letter_of_an_operation", condition=Q(operation_id__isnull=False)
            ),
            # What people narrow the list by.
            models.Index(fields=["kind", "-created_at", "-id"], name="letter_of_a_kind"),
            models.Index(fields=["code", "-created_at", "-id"], name="letter_of_a_code"),
            models.Index(fields=["queue", "-created_at", "-id"], name="letter_of_a_queue"),
            models.Index(fields=["project", "-created_at", "-id"], name="letter_of_a_project"),
        ]

    def __str__(self) -> str:
        return f"letter of {shown_id(self.task_id)}"
