"""Webhooks as rows: a project's secret, what is to be told (events), each try to tell it, and URLs that want no more.

Append-only tables have no incoming foreign keys; what is sent again is read from its event, byte for byte.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.access.models import Project
from apps.core.crypto import EncryptedTextField
from apps.core.ids import new_uuid


class WebhookSecret(models.Model):
    """What a project's webhooks are signed with. While it rotates, the previous one signs too, until its time."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="webhook_secret")
    secret = EncryptedTextField(editable=False)
    previous = EncryptedTextField(blank=True, default="", editable=False)
    previous_expires_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    rotated_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="webhook_secret_previous_has_an_end",
                condition=Q(previous="", previous_expires_at__isnull=True)
                | (~Q(previous="") & Q(previous_expires_at__isnull=False)),
            )
        ]

    def __str__(self) -> str:
        return f"webhook secret of {self.project if self.project_id else 'no project'}"


class WebhookEvent(models.Model):
    """The end of one cycle of a task, as its callback URL is told: written once, in the transaction of that end."""

    class Type(models.TextChoices):
        SUCCEEDED = "task.succeeded", "task.succeeded"
        DEAD = "task.dead", "task.dead"
        CANCELLED = "task.cancelled", "task.cancelled"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    task_id = models.UUIDField()
    cycle = models.PositiveSmallIntegerField()
    type = models.CharField(max_length=32, choices=Type.choices)
    url = models.TextField()
    body = models.TextField(help_text="The bytes that are sent: ASCII JSON.")
    delivery_id = models.UUIDField(null=True, help_text="The task that delivers it; the last one, if asked for again.")
    held = models.BooleanField(default=False, help_text="Not sent by itself: the URL was disabled when it came to be.")
    delivered_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task_id", "cycle"], name="webhook_event_of_a_cycle_once")]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="webhook_event_newest_first"),
            models.Index(
                fields=["-created_at", "-id"], name="webhook_event_undelivered", condition=Q(delivered_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"evt_{self.pk.hex}"


class WebhookAttempt(models.Model):
    """One try to deliver an event."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    event_id = models.UUIDField()
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    task_id = models.UUIDField(help_text="The task that the event tells of.")
    delivery_id = models.UUIDField(help_text="The task that delivers the event.")
    number = models.PositiveIntegerField(help_text="Of the delivery's attempts.")
    type = models.CharField(max_length=32, choices=WebhookEvent.Type.choices)
    url = models.TextField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=32, blank=True)
    message = models.TextField(blank=True)
    response = models.TextField(blank=True, help_text="The first 2 KiB of the answer.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="webhook_try_newest_first"),
            models.Index(fields=["task_id", "-id"], name="webhook_try_of_a_task"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of evt_{self.event_id.hex}"


class DisabledUrl(models.Model):
    """A URL of a project that answered 410 Gone: nothing is sent there until somebody enables it."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE)
    url = models.TextField("URL")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "disabled URL"
        # A URL that is called has at most 2,048 characters: an index takes it.
        constraints = [models.UniqueConstraint(fields=["project", "url"], name="webhook_url_disabled_once")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="webhook_url_newest_first")]

    def __str__(self) -> str:
        return self.url[:200]
