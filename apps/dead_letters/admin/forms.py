"""What people are asked before a decision about letters, groups and bulk operations."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.access.audited_admin import DecisionForm
from apps.dead_letters import grouping
from apps.dead_letters.bulk import control
from apps.dead_letters.models import DeadLetter

(SLOWEST, FASTEST), (FEWEST, MOST) = control.RATES, control.IN_FLIGHT


class DiscardForm(DecisionForm):
    """Why, by a code that can be counted and in words."""

    code = forms.ChoiceField(
        label="Kind of reason", choices=DeadLetter.DiscardCode.choices, widget=UnfoldAdminSelectWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _need_reason(self)


class EditForm(DecisionForm):
    """The payload as JSON; the revision that it was made of tells whether somebody else was quicker."""

    payload = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 24, "spellcheck": "false", "class": "rd-editor"}), strip=False
    )
    revision = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _need_reason(self)


class SnoozeForm(DecisionForm):
    """Until when, or after how many failures more."""

    hours = forms.FloatField(
        label="For hours",
        required=False,
        min_value=0.1,
        max_value=366 * 24,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any"}),
        help_text="Shown again after so many hours.",
    )
    more = forms.IntegerField(
        label="Or until so many more failures",
        required=False,
        min_value=1,
        max_value=grouping.MOST_MORE,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Shown again as soon as it has failed so often from now on.",
    )

    def clean(self) -> dict[str, Any]:
        """One of the two at least."""
        values = super().clean() or {}
        if values.get("hours") is None and values.get("more") is None and not self.errors:
            raise ValidationError("Say for how long, or for how many failures.")
        return values


class AssignForm(DecisionForm):
    """To whom."""

    owner = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, people: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["owner"].choices = [("", "Nobody"), *((name, name) for name in people)]  # type: ignore[attr-defined]


class NoteForm(DecisionForm):
    """What others should know."""

    text = forms.CharField(
        label="Note", required=False, max_length=grouping.MAX_NOTE, widget=UnfoldAdminTextareaWidget(attrs={"rows": 6})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["reason"]  # the note is its own


class StartForm(DecisionForm):
    """At what pace a bulk operation goes. expected: the number that must be typed, None where it need not be."""

    rate = forms.FloatField(
        label="Letters a second", min_value=SLOWEST, max_value=FASTEST,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any", "inputmode": "decimal"}),
    )  # fmt: skip
    max_in_flight = forms.IntegerField(
        label="Unfinished at once, at most", min_value=FEWEST, max_value=MOST, widget=UnfoldAdminIntegerFieldWidget
    )
    canary = forms.IntegerField(
        label="Canary", min_value=0, widget=UnfoldAdminIntegerFieldWidget,
        help_text="So many go first; the others only if all of these succeed. 0: none.",
    )  # fmt: skip
    stop_percent = forms.IntegerField(
        label="Stop above % failing again", min_value=1, max_value=100, widget=UnfoldAdminIntegerFieldWidget
    )
    code = forms.ChoiceField(
        label="Kind of reason", choices=DeadLetter.DiscardCode.choices, widget=UnfoldAdminSelectWidget
    )
    confirm = forms.IntegerField(
        label="Type the number of letters", widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"})
    )

    def __init__(self, *args: Any, action: str, expected: int | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("max_in_flight", "canary", "stop_percent") if action != "redrive" else ():
            del self.fields[name]
        if action == "discard":
            _need_reason(self)
        else:
            del self.fields["code"]
        if expected is None:
            del self.fields["confirm"]
        else:
            self.fields["confirm"].help_text = f"{expected}: so many that one click shall not be enough."
        order = ("confirm", "code", "reason", "rate", "max_in_flight", "canary", "stop_percent")
        self.order_fields([name for name in order if name in self.fields])


class PaceForm(forms.Form):
    """A new pace for an operation under way."""

    rate = forms.FloatField(
        label="Letters a second", min_value=SLOWEST, max_value=FASTEST,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any"}),
    )  # fmt: skip
    max_in_flight = forms.IntegerField(
        label="Unfinished at once", min_value=FEWEST, max_value=MOST, widget=UnfoldAdminIntegerFieldWidget
    )


def _need_reason(form: DecisionForm) -> None:
    form.fields["reason"].required = True
    form.fields["reason"].help_text = "Kept with the letter and in the audit."
