"""Who may call and how much: projects, their API keys, limits, and the append-only audit."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from knox.models import AbstractAuthToken

from apps.core.crypto import EncryptedTextField
from apps.core.ids import new_uuid

name_validator = RegexValidator(r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", "Letters, digits and . _ - only.")


class Project(models.Model):
    """Owns everything: keys, spend, budgets, stored bodies. Two keys of one project share its work."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    store_bodies = models.BooleanField(
        default=False,
        help_text="Keep the texts of live requests and answers. Off: only counts, costs and times are kept. Tasks keep "
        "theirs until REDRIVE_TASK_RETENTION_DAYS after their end.",
    )
    body_retention_days = models.PositiveSmallIntegerField(
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="Days until stored texts are deleted.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A caller's secret. Only its SHA-256 is stored; while a key rotates, the previous one works until its time."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=64, help_text="Who or what uses this key.")
    prefix = models.CharField(
        max_length=12, editable=False, help_text="The key's first characters, to tell keys apart."
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    previous_digest = models.CharField(max_length=64, unique=True, null=True, editable=False)  # noqa: DJ001 (unique)
    previous_expires_at = models.DateTimeField(null=True, editable=False)
    allowed_models = ArrayField(
        models.CharField(max_length=128),
        default=list,
        blank=True,
        help_text="Model names this key may use, with * as a wildcard, comma separated. Empty: all.",
    )
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="The key stops working at this time. Empty: never."
    )
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                name="api_key_previous_digest_has_an_end",
                condition=Q(previous_digest__isnull=True, previous_expires_at__isnull=True)
                | Q(previous_digest__isnull=False, previous_expires_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Limit(models.Model):
    """How much one project or one key may use; an empty field is no limit."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, null=True, blank=True, related_name="limit")
    api_key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="limit")
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    concurrency = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Requests at the same time."
    )
    monthly_budget_usd = models.DecimalField(
        null=True,
        blank=True,
        max_digits=12,
        decimal_places=4,
        validators=[MinValueValidator(0)],
        help_text="US dollars in a calendar month (UTC).",
    )
    end_user_requests_per_minute = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="For each end user (X-User-ID, or `user` in the body), in addition to the limits above.",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="limit_is_of_a_project_or_of_a_key",
                condition=Q(project__isnull=False, api_key__isnull=True)
                | Q(project__isnull=True, api_key__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"limits of {self.project or self.api_key}"


class AuditEntry(models.Model):
    """One decision of a person or a command. The database refuses to change or delete a row."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    at = models.DateTimeField(db_default=Now(), editable=False)
    # Names and ids instead of foreign keys: the entry must outlive what it speaks of.
    actor_id = models.IntegerField(null=True)
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=64)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    before: "models.JSONField[Any, Any]" = models.JSONField(null=True)
    after: "models.JSONField[Any, Any]" = models.JSONField(null=True)
    request_id = models.CharField(max_length=128, blank=True)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["-at", "-id"], name="audit_newest_first"),
            models.Index(fields=["object_type", "object_id", "-at"], name="audit_of_an_object"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_name}"

    @property
    def said(self) -> list[tuple[str, Any]]:
        """What it set, without texts that are empty."""
        return [(name, value) for name, value in (self.after or {}).items() if value != ""]


class OperatorToken(AbstractAuthToken):  # type: ignore[misc]
    """A script's way into the operators' REST API, with the rights of its person. Only its SHA-512 is stored."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    name = models.CharField(max_length=64, blank=True, help_text="What uses it.")
    digest = models.CharField(max_length=128, unique=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(name="operator_token_expires", condition=Q(expiry__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.name or 'token'} ({self.token_key}…)"


class IdempotencyRecord(models.Model):
    """What one Idempotency-Key stands for, for 24 hours: the task it made, or the reply of a live call."""

    pk = models.CompositePrimaryKey("project_id", "route", "key")
    project_id = models.UUIDField()
    route = models.CharField(max_length=64)
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the request's body.")
    task_id = models.UUIDField(null=True)
    lease = models.UUIDField(null=True, help_text="Of a live call that still runs: who may end it.")
    lease_until = models.DateTimeField(null=True, help_text="After this another request may take the key over.")
    reply = EncryptedTextField(blank=True, help_text="The body of a live call's reply.")
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="idempotency_lease_has_an_end",
                condition=Q(lease__isnull=True, lease_until__isnull=True)
                | Q(lease__isnull=False, lease_until__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"
