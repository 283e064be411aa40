"""The ledger (one row per upstream request) and, where a project wants it, the texts of requests."""

from django.db import models

from apps.access.models import ApiKey, Project
from apps.core.ids import new_uuid

NUSD = 1_000_000_000  # nano-USD in a US dollar


class LedgerEntry(models.Model):
    """What one upstream request used, cost and took. Append-only; totals are always derived from these rows.

    Foreign keys carry no database constraint: a row of money must never be refused because its key was deleted.
    """

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"
        INTERRUPTED = "interrupted"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    created_at = models.DateTimeField()
    request_id = models.CharField(max_length=128)
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, verbose_name="API key"
    )
    end_user = models.CharField(max_length=256, blank=True)
    operation = models.CharField(max_length=32)
    model = models.CharField(max_length=128)
    provider = models.CharField(max_length=64)
    upstream_model = models.CharField(max_length=128)
    upstream_request_id = models.CharField(max_length=200, blank=True)
    attempt = models.PositiveSmallIntegerField()
    stream = models.BooleanField()
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    status = models.PositiveSmallIntegerField(null=True)
    error_code = models.CharField(max_length=64, blank=True)
    input_tokens = models.PositiveIntegerField()
    cached_tokens = models.PositiveIntegerField()
    output_tokens = models.PositiveIntegerField()
    cost_nusd = models.BigIntegerField("cost (nano-USD)")
    estimated = models.BooleanField()
    latency_ms = models.PositiveIntegerField("latency (ms)")
    ttft_ms = models.PositiveIntegerField("time to first token (ms)", null=True)
    elapsed_ms = models.PositiveIntegerField("since the request's start (ms)")
    task_id = models.UUIDField(null=True, help_text="The task that it was for; empty for a live call.")
    task_attempt = models.PositiveIntegerField(null=True)

    class Meta:
        verbose_name_plural = "ledger"
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="ledger_newest_first"),
            models.Index(fields=["project", "-created_at"], name="ledger_of_a_project", include=["cost_nusd"]),
            models.Index(fields=["api_key", "-created_at"], name="ledger_of_a_key", include=["cost_nusd"]),
            models.Index(fields=["request_id"], name="ledger_of_a_request"),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.outcome} ({self.request_id})"

    @property
    def cost_usd(self) -> float:
        """US dollars."""
        return self.cost_nusd / NUSD


class StoredBody(models.Model):
    """The texts of one request and its answer, kept only where the project says so, until `expires_at`."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    request_id = models.CharField(max_length=128, db_index=True)
    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    # Text, not jsonb: answers hold NUL and lone surrogates, which jsonb refuses; ASCII-escaped JSON holds them.
    request = models.TextField()
    response = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "stored bodies"

    def __str__(self) -> str:
        return self.request_id
