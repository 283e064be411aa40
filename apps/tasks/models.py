"""Durable tasks as rows: Postgres is the truth, everything else (rings, workers, the clock) only makes it move.

Append-only tables have no incoming foreign keys; texts are ASCII-escaped JSON and never jsonb, which refuses NUL and
lone surrogates.
"""

from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.access.models import ApiKey, Project
from apps.core.ids import new_uuid
from apps.tasks import states

PREFIX = "task_"


def shown_id(task_id: UUID) -> str:
    """`task_...`, as clients know it."""
    return f"{PREFIX}{task_id.hex}"


class Task(models.Model):
    """One piece of accepted work, below 1 kB; its payload, attempts and result have rows of their own."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, verbose_name="API key"
    )
    request_id = models.CharField(max_length=128, blank=True)
    end_user = models.CharField(max_length=256, blank=True)
    kind = models.CharField(max_length=64)
    schema_version = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=16, choices=[(state, state) for state in states.ALL], default=states.PENDING)
    priority = models.CharField(max_length=8, help_text="As asked for; the queue says where it waits.")
    queue = models.CharField(max_length=16)
    next_attempt_at = models.DateTimeField()
    deadline = models.DateTimeField(null=True)
    allowed = models.FloatField(null=True, help_text="Seconds from the accept, or a redrive, to the deadline.")
    cancel_requested = models.BooleanField(default=False)

    # The lease of the running attempt.
    worker = models.UUIDField(null=True)
    token = models.BigIntegerField(null=True)
    run_until = models.DateTimeField(null=True)
    attempt_started_at = models.DateTimeField(null=True)

    attempt = models.PositiveIntegerField(default=0, help_text="Attempts begun; only ever grows.")
    cycle = models.PositiveSmallIntegerField(default=1, help_text="1, and one more with each redrive.")
    charged_failures = models.PositiveSmallIntegerField(default=0)
    worker_losses = models.PositiveSmallIntegerField(default=0)
    parked_since = models.DateTimeField(null=True)

    parent_id = models.UUIDField(null=True)
    item_index = models.PositiveIntegerField(null=True)
    children_total = models.PositiveIntegerField(null=True, help_text="Children that a parent will have in all.")
    callback_url = models.TextField(blank=True)
    metadata = models.TextField(blank=True, help_text="JSON object.")
    progress = models.TextField(blank=True, help_text="JSON: current, total, status.")
    error = models.TextField(blank=True, help_text="JSON: the inner error object of a dead task.")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["queue", "next_attempt_at"], name="task_due", condition=Q(state__in=states.DUE)),
            models.Index(fields=["worker"], name="task_running", condition=Q(state=states.RUNNING)),
            models.Index(
                fields=["deadline"], name="task_deadline", condition=Q(state__in=(*states.DUE, states.WAITING))
            ),
            models.Index(fields=["project", "-id"], name="task_of_a_project"),
            models.Index(fields=["id"], name="task_waiting", condition=Q(state=states.WAITING)),
            models.Index(
                fields=["parent_id"],
                name="task_unfinished_child",
                condition=Q(parent_id__isnull=False, finished_at__isnull=True),
            ),
            models.Index(
                fields=["project", "-id"],
                name="task_given_up",
                condition=Q(state__in=(states.DEAD, states.CANCELLED)),
            ),
            models.Index(fields=["finished_at"], name="task_finished", condition=Q(state__in=states.FINAL)),
            # The few that did not succeed: operators list them out of millions that did.
            models.Index(
                fields=["state", "-id"], name="task_not_succeeded", condition=Q(state__in=states.UNSUCCESSFUL)
            ),
        ]
        permissions = [
            ("cancel_task", "Can cancel any task"),
            ("reveal_payload", "Can look at the texts of any task"),
            ("edit_payload", "Can edit the payload of a dead task and redrive it"),
        ]
        constraints = [
            models.CheckConstraint(name="task_state_is_known", condition=Q(state__in=states.ALL)),
            models.CheckConstraint(
                name="task_runs_exactly_with_a_token",
                condition=Q(state=states.RUNNING, token__isnull=False, worker__isnull=False, run_until__isnull=False)
                | (~Q(state=states.RUNNING) & Q(token__isnull=True, worker__isnull=True, run_until__isnull=True)),
            ),
            models.CheckConstraint(
                name="task_is_final_exactly_with_an_end",
                condition=Q(state__in=states.FINAL, finished_at__isnull=False)
                | (Q(state__in=states.UNFINISHED) & Q(finished_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="task_that_shall_be_cancelled_runs_or_is_final",
                condition=Q(cancel_requested=False) | Q(state__in=(states.RUNNING, *states.FINAL)),
            ),
            models.UniqueConstraint(
                name="task_item_of_a_parent_once",
                fields=["parent_id", "item_index"],
                condition=Q(parent_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return shown_id(self.pk)


class TaskPayload(models.Model):
    """What a task shall do: its kind's arguments. An operator's edit adds a revision; the last one counts."""

    pk = models.CompositePrimaryKey("task_id", "revision")
    task_id = models.UUIDField()
    revision = models.PositiveSmallIntegerField()
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"revision {self.revision} of {shown_id(self.task_id)}"


class TaskResult(models.Model):
    """What a task gave. `token` is that of the attempt whose result it is."""

    task_id = models.UUIDField(primary_key=True)
    token = models.BigIntegerField()
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"result of {shown_id(self.task_id)}"


class TaskAttempt(models.Model):
    """One try, written when it has ended; while it runs, its task's row tells of it."""

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        RATE_LIMITED = "rate_limited"
        PARKED = "parked"
        HANDED_BACK = "handed_back"
        WORKER_LOST = "worker_lost"
        TIMED_OUT = "timed_out"
        CANCELLED = "cancelled"
        WAITING = "waiting"

    pk = models.CompositePrimaryKey("task_id", "number")
    task_id = models.UUIDField()
    number = models.PositiveIntegerField()
    cycle = models.PositiveSmallIntegerField()
    token = models.BigIntegerField()
    worker = models.UUIDField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(db_default=Now())
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    charged = models.BooleanField()
    error_code = models.CharField(max_length=64, blank=True)
    error_status = models.PositiveSmallIntegerField(null=True)
    error_message = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    traceback = models.TextField(blank=True)
    upstream = models.CharField(max_length=200, blank=True)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_nusd = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"attempt {self.number} of {shown_id(self.task_id)}"


class QueueState(models.Model):
    """A queue that an operator has paused; a queue without a row runs."""

    name = models.CharField(max_length=16, primary_key=True)
    paused_at = models.DateTimeField(null=True)
    resume_at = models.DateTimeField(null=True, help_text="Resumes by itself at this time. Empty: never.")
    reason = models.TextField(blank=True)
    paused_by = models.CharField(max_length=150, blank=True, db_default="")

    class Meta:
        verbose_name = "queue"
        permissions = [("pause_queue", "Can pause and resume queues")]

    def __str__(self) -> str:
        return self.name


class WorkerPresence(models.Model):
    """A worker's lease on all its attempts: without renewal they are taken from it at `expires_at`.

    `lock_key` names the advisory lock that its session holds, if it does: a free one tells of a killed worker at once.
    """

    id = models.UUIDField(primary_key=True)
    lock_key = models.IntegerField(null=True)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    queues = models.CharField(max_length=255)
    slots = models.PositiveIntegerField()
    in_flight = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField(db_default=Now())
    beat_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = "worker"

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class RetryPolicy(models.Model):
    """An operator's change of a kind's policy; an empty field leaves the default of the code."""

    kind = models.CharField(max_length=64, primary_key=True)
    base = models.FloatField(null=True, blank=True, help_text="Seconds before the first retry, at most.")
    factor = models.FloatField(null=True, blank=True)
    cap = models.FloatField(null=True, blank=True, help_text="Seconds between two attempts, at most.")
    max_retries = models.PositiveSmallIntegerField(null=True, blank=True)
    park_limit = models.FloatField(
        null=True, blank=True, help_text="Seconds a task waits for a closed door (breaker, budget) before it dies."
    )

    class Meta:
        verbose_name_plural = "retry policies"

    def __str__(self) -> str:
        return self.kind


class RetryHold(models.Model):
    """A fingerprint whose failures are not retried any more: set by triage."""

    fingerprint = models.CharField(max_length=64, primary_key=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.fingerprint


class ClockBeat(models.Model):
    """When a clock last did each of its chores."""

    chore = models.CharField(max_length=64, primary_key=True)
    beat_at = models.DateTimeField()
    clock = models.CharField(max_length=255)
    error = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.chore
