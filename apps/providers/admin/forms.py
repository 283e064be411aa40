"""The forms of providers: secrets are written and never shown."""

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.core.validators import RegexValidator
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.access.audited_admin import DecisionForm
from apps.providers.models import validate_headers

one_word = RegexValidator(r"\A[\x21-\x7e]+\Z", "No spaces, line breaks or letters beyond ASCII.")


class SecretTextarea(UnfoldAdminTextareaWidget):
    """Several secret lines: what was typed never comes back in a page."""

    def format_value(self, value: Any) -> str:
        """Nothing."""
        return ""


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """A provider; an empty secret leaves the stored one as it is."""

    new_api_key = forms.CharField(
        label="API key",
        required=False,
        validators=[one_word],
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )
    remove_api_key = forms.BooleanField(label="Remove the key", required=False, widget=UnfoldBooleanSwitchWidget)
    new_headers = forms.CharField(
        label="Further headers",
        required=False,
        validators=[validate_headers],
        widget=SecretTextarea(attrs={"rows": 3, "autocomplete": "off"}),
    )
    remove_headers = forms.BooleanField(label="Remove the headers", required=False, widget=UnfoldBooleanSwitchWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._explain("api_key", "key", "Stored encrypted; never shown again.")
        self._explain("headers", "header", "For every request, one `Name: value` a line. Stored encrypted.")

    def _explain(self, name: str, noun: str, text: str) -> None:
        stored = getattr(self.instance, f"has_{name}", False)
        if field := self.fields.get(f"new_{name}"):
            field.help_text = f"A {noun} is stored; leave this empty to keep it. {text}" if stored else text
        if not stored:
            self.fields.pop(f"remove_{name}", None)

    def clean(self) -> dict[str, Any]:
        """Secrets belong to the address that they were given for: whoever changes it has to know them."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        before, after = self.initial.get("base_url") or "", cleaned.get("base_url") or ""
        if before and after and urlsplit(before)[:2] != urlsplit(after)[:2]:
            for name, label in (("api_key", "key"), ("headers", "headers")):
                given = cleaned.get(f"new_{name}") or cleaned.get(f"remove_{name}")
                if getattr(self.instance, f"has_{name}", False) and not given:
                    complaint = f"The stored {label} went to {before}. Enter what the new address needs."
                    self.add_error(f"new_{name}", complaint)
        return cleaned

    def secrets(self) -> dict[str, str]:
        """The secrets to store, by field."""
        found = {name: self.cleaned_data.get(f"new_{name}") or "" for name in ("api_key", "headers")}
        return {name: text for name, text in found.items() if text or self.cleaned_data.get(f"remove_{name}")}


class ResetForm(DecisionForm):
    """Which breaker."""

    model = forms.ChoiceField(label="Model", widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].choices = [("", "All models of this provider"), *((name, name) for name in models)]  # type: ignore[attr-defined]
        self.fields["model"].required = False


class ProbeForm(DecisionForm):
    """Which request."""

    model = forms.ChoiceField(label="Request", required=False, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chats = [(name, f"A chat answer of one token from {name}") for name in models]
        self.fields["model"].choices = [("", "The list of models (costs nothing)"), *chats]  # type: ignore[attr-defined]
