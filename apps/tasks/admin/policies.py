"""The admin of retry policies."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget

from apps.access.audited_admin import AuditedModelAdmin
from apps.tasks import kinds
from apps.tasks.models import RetryPolicy

DEFAULTS = ("base", "factor", "cap", "max_retries", "park_limit")
LEAST = {"base": 0.0, "factor": 1.0, "cap": 0.0, "park_limit": 0.0}


class RetryPolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A kind of the catalogue, and numbers that make sense."""

    class Meta:
        model = RetryPolicy
        fields = ("kind", "base", "factor", "cap", "max_retries", "park_limit")
        widgets = {"kind": UnfoldAdminSelectWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "kind" in self.fields:
            names = {*kinds.names(), *filter(None, [self.initial.get("kind")])}
            self.fields["kind"] = forms.ChoiceField(
                choices=[(name, name) for name in sorted(names)], widget=UnfoldAdminSelectWidget
            )
        for name, field in self.fields.items():
            if name in DEFAULTS:
                field.help_text = f"{field.help_text} Empty: as the code has it."

    def clean(self) -> dict[str, Any]:
        """Nothing below what the field can mean."""
        values = super().clean() or {}
        for name, least in LEAST.items():
            if values.get(name) is not None and not least <= values[name] < float("inf"):
                self.add_error(name, ValidationError(f"It is a number from {least:g} on."))
        return values


@admin.register(RetryPolicy)
class RetryPolicyAdmin(AuditedModelAdmin):
    """What differs from a kind's own retry policy; in force on every worker within a few seconds."""

    form = RetryPolicyForm
    list_display = ("kind", *DEFAULTS)
    ordering = ("kind",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A row stays with its kind: the kind is its key."""
        return ("kind",) if obj is not None else ()
