"""Alerts: rules that say when people are told, channels that say how, and what was told."""

from datetime import date

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from apps.core.crypto import EncryptedTextField
from apps.core.ids import new_uuid

MOST_COUNTED = 10_000  # failures of a kind: counting ends there


class Severity(models.TextChoices):
    """How much it matters, least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class WithoutSecrets(models.Manager["AlertChannel"]):
    """Channels whose URL is read, and decrypted, only where something asks for it."""

    def get_queryset(self) -> "QuerySet[AlertChannel]":
        """All, without their URLs."""
        return super().get_queryset().defer("url")


class AlertChannel(models.Model):
    """Where alerts are sent: an Apprise URL (mailto://, slack://, pagerduty://, discord://, json://, ...)."""

    name = models.CharField(max_length=64, unique=True)
    url = EncryptedTextField(help_text="An Apprise URL. Stored encrypted and never shown again.")
    enabled = models.BooleanField(default=True)
    least_severity = models.CharField(
        max_length=8, choices=Severity.choices, default=Severity.INFO, help_text="Nothing below it is sent here."
    )
    digest = models.BooleanField(default=False, help_text="Send the daily digest here too.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    tried_at = models.DateTimeField(null=True, editable=False, help_text="When something was last sent here.")
    outcome = models.CharField(
        max_length=300, blank=True, db_default="", editable=False, help_text="Why that failed. Empty: it did not."
    )

    objects = WithoutSecrets()

    class Meta:
        verbose_name = "alert channel"

    def __str__(self) -> str:
        return self.name


class AlertRule(models.Model):
    """When people are told. Told on change of state, never once per failure."""

    class Event(models.TextChoices):
        NEW_GROUP = "new_group", "A new failure group"
        REGRESSED = "regressed", "A resolved group fails again"
        RATE = "rate", "Too many failures of one kind"
        OLDEST_OPEN = "oldest_open", "An open letter is too old"
        QUEUE_PAUSED = "queue_paused", "A queue is paused for too long"
        CLOCK_SILENT = "clock_silent", "A chore of the clock fails or is late"
        WORKERS_SILENT = "workers_silent", "Due work waits and no worker takes it"
        BREAKER_OPEN = "breaker_open", "A circuit breaker is open"

    name = models.CharField(max_length=64, unique=True)
    event = models.CharField(max_length=16, choices=Event.choices)
    severity = models.CharField(max_length=8, choices=Severity.choices, default=Severity.WARNING)
    enabled = models.BooleanField(default=True)
    kind = models.CharField(max_length=64, blank=True, help_text="Only of this kind of task. Empty: of any.")
    threshold = models.PositiveIntegerField(
        default=10,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_COUNTED)],
        help_text="Failures of one kind that are too many.",
    )
    window = models.PositiveIntegerField(
        default=3600,
        validators=[MinValueValidator(60), MaxValueValidator(7 * 86_400)],
        help_text="Seconds within which they are counted.",
    )
    age = models.PositiveIntegerField(
        default=3600,
        validators=[MaxValueValidator(366 * 86_400)],
        help_text="Seconds after which it is too old, or has lasted too long.",
    )
    throttle = models.PositiveIntegerField(
        default=3600,
        validators=[MaxValueValidator(7 * 86_400)],
        help_text="Seconds within which the same thing is sent once, however often it changes.",
    )
    channels: "models.ManyToManyField[AlertChannel, AlertRule]" = models.ManyToManyField(
        AlertChannel, blank=True, help_text="None chosen: all that are enabled."
    )

    class Meta:
        verbose_name = "alert rule"

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """Something that a rule found, from when it began to when it ended. subject: what it is about, by its id."""

    class State(models.TextChoices):
        FIRING = "firing"
        ACKNOWLEDGED = "acknowledged"
        ENDED = "ended"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    rule = models.ForeignKey(AlertRule, on_delete=models.SET_NULL, null=True, related_name="alerts")
    event = models.CharField(max_length=16, choices=AlertRule.Event.choices)
    severity = models.CharField(max_length=8, choices=Severity.choices)
    subject = models.CharField(max_length=200)
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.FIRING)
    opened_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, help_text="Empty: held back, for the same was sent a short while before.")
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [("acknowledge_alert", "Can acknowledge alerts")]
        constraints = [
            models.CheckConstraint(
                name="alert_is_ended_exactly_with_a_time",
                condition=Q(state="ended", ended_at__isnull=False) | (~Q(state="ended") & Q(ended_at__isnull=True)),
            ),
            models.UniqueConstraint(
                fields=["rule", "subject"], condition=~Q(state="ended"), name="alert_of_a_subject_once"
            ),
        ]
        indexes = [
            models.Index(fields=["-opened_at", "-id"], name="alert_newest_first"),
            models.Index(fields=["-opened_at", "-id"], name="alert_active", condition=~Q(state="ended")),
            models.Index(fields=["rule", "subject", "-sent_at"], name="alert_of_a_subject"),
            models.Index(fields=["ended_at"], name="alert_ended", condition=Q(state="ended")),
        ]

    def __str__(self) -> str:
        return self.title


class AlertDigest(models.Model):
    """A day (UTC) whose digest was sent."""

    day = models.DateField(primary_key=True)
    words = models.TextField(blank=True, db_default="", help_text="What it said.")
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.day.isoformat() if isinstance(self.day, date) else str(self.day)
