"""Where models are served (Provider) and what their public names mean (ModelRoute -> ordered Upstreams)."""

from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now

from apps.core.crypto import EncryptedTextField
from apps.core.ids import new_uuid

MODEL_NAME = r"\A[a-zA-Z0-9_.:/@-]+\Z"
model_name_validator = RegexValidator(MODEL_NAME, "Letters, digits and _ . : / @ - only.")
provider_name_validator = RegexValidator(r"\A[a-z0-9][a-z0-9._-]*\Z", "Lower-case letters, digits and . _ - only.")


def validate_base_url(value: str) -> None:
    """http or https, a host, no credentials, no query. Operators may name private addresses."""
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise ValidationError("This is not a URL.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
        raise ValidationError("Give an http:// or https:// URL with a host, such as https://api.openai.com/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValidationError("No user, password, query or fragment: the key has its own field.")


def validate_headers(value: str) -> None:
    """One `Name: value` a line."""
    for line in filter(None, map(str.strip, value.splitlines())):
        name, colon, content = line.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum() or not content.strip() or not line.isascii():
            raise ValidationError("One header a line, as `Name: value`.")


def default_params() -> dict[str, Any]:
    """What a new chat route sends where the client sent nothing."""
    return {"temperature": 0.7, "max_tokens": 1024}


def validate_params(value: Any) -> None:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValidationError('Give a JSON object, such as {"temperature": 0.7}.')


def _seconds(default: float, most: float, **options: Any) -> Any:
    return models.FloatField(default=default, validators=[MinValueValidator(0.1), MaxValueValidator(most)], **options)


class Provider(models.Model):
    """A server of models. Times are seconds."""

    class Kind(models.TextChoices):
        OPENAI_HTTP = "openai_http", "OpenAI-compatible HTTP"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    name = models.CharField(max_length=64, unique=True, validators=[provider_name_validator])
    kind = models.CharField(max_length=32, choices=Kind.choices, default=Kind.OPENAI_HTTP)
    base_url = models.CharField(
        "base URL", max_length=500, validators=[validate_base_url], help_text="As in the SDK: ends in /v1."
    )
    api_key = EncryptedTextField("API key", blank=True, default="", help_text="Stored encrypted; never shown again.")
    headers = EncryptedTextField(
        blank=True,
        default="",
        validators=[validate_headers],
        help_text="Further headers for every request, one `Name: value` a line. Stored encrypted; never shown again.",
    )
    enabled = models.BooleanField(default=True)
    connect_timeout = _seconds(5, 60, help_text="Seconds to connect.")
    first_token_timeout = _seconds(60, 600, help_text="Seconds until the first content of a stream.")
    idle_timeout = _seconds(60, 600, help_text="Seconds between two pieces of a stream.")
    total_timeout = _seconds(
        600,
        600,
        help_text="Seconds for a whole call, retries included; the only limit on answers that are not streamed.",
    )
    max_concurrency = models.PositiveIntegerField(
        default=1000, validators=[MinValueValidator(1)], help_text="Calls at the same time, for each gateway process."
    )
    breaker_failures = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1)],
        help_text="Failures in a row, within the window, that open the circuit breaker of a model.",
    )
    breaker_window = _seconds(60, 3600, help_text="Seconds within which the failures count.")
    breaker_reset = _seconds(30, 3600, help_text="Seconds until an open breaker lets one call through to probe.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    class Meta:
        permissions = [("reset_breaker", "Can reset circuit breakers")]

    def __str__(self) -> str:
        return self.name


class ModelRoute(models.Model):
    """A model's public name, and what happens to requests that use it."""

    class UnknownFields(models.TextChoices):
        REFUSE = "refuse", "Refuse with 400"
        FORWARD = "forward", "Forward to the provider"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    public_name = models.CharField(max_length=128, unique=True, validators=[model_name_validator])
    enabled = models.BooleanField(default=True)
    default_params: "models.JSONField[Any, Any]" = models.JSONField(
        default=default_params,
        blank=True,
        validators=[validate_params],
        help_text="Sent with chat requests where the client left them out. Empty {} for models that refuse them.",
    )
    context_window = models.PositiveIntegerField(
        default=128_000, validators=[MinValueValidator(1)], help_text="Tokens of input and output together."
    )
    max_output_tokens = models.PositiveIntegerField(
        default=16_384, validators=[MinValueValidator(1)], help_text="The greatest max_tokens a request may ask for."
    )
    unknown_fields = models.CharField(
        max_length=8,
        choices=UnknownFields.choices,
        default=UnknownFields.REFUSE,
        help_text="What to do with fields of a request that OpenAI does not document.",
    )
    fallback_after = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1), MaxValueValidator(600)],
        help_text="Seconds without a first byte after which the next upstream is tried. Empty: the provider's timeout.",
    )
    input_usd_per_million = models.DecimalField(
        "input price",
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US dollars for a million input tokens. Empty: the published price of the upstream's model.",
    )
    output_usd_per_million = models.DecimalField(
        "output price",
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US dollars for a million output tokens.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.public_name


class Upstream(models.Model):
    """One place that serves a route. The lowest position is tried first; equals share by weight."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    route = models.ForeignKey(ModelRoute, on_delete=models.CASCADE, related_name="upstreams")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="upstreams")
    model = models.CharField(max_length=128, validators=[model_name_validator], help_text="The model's name there.")
    position = models.PositiveSmallIntegerField(default=1, help_text="1 is tried first, then 2, and so on.")
    weight = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1)], help_text="Share of the traffic among those of one position."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["route", "provider", "model"], name="upstream_once_per_route"),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"
