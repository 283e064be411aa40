"""What every admin of Redrive does: a change and its audit entry are one transaction, and an action asks first.

`AuditedModelAdmin` is the base of all admins that change rows, `ReadOnlyModelAdmin` of those that only show them.
Custom actions call `decide`: GET shows a page that says what will happen, only its POST acts.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import connection, models, transaction
from django.db.models.functions import Cast
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.access import audit, reasons
from apps.core.crypto import EncryptedTextField
from apps.core.errors import Conflict, InvalidRequest

REASON = "audit_reason"


class DecisionForm(forms.Form):
    """What a person is asked before an action; actions add their own fields."""

    reason = forms.CharField(
        required=False,
        max_length=reasons.MOST,
        widget=UnfoldAdminTextInputWidget,
        help_text="Optional. Kept in the audit.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order_fields([name for name in self.fields if name != "reason"])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row and its inlines as the audit shows them, and its stored secrets to see whether they were replaced."""

    values: dict[str, Any]
    secrets: dict[str, str]


class Decisions:
    """Actions that ask on GET and act on POST."""

    admin_site: Any
    opts: Any

    def log_action(self, request: HttpRequest, row: models.Model, message: str) -> None:
        """Django's log entry of an action that wrote its own audit entry."""
        ModelAdmin.log_change(self, request, row, message)

    def decide(
        self,
        request: HttpRequest,
        row: models.Model,
        *,
        title: str,
        explanation: str,
        submit: str,
        act: Callable[[dict[str, Any]], HttpResponse | None],
        form: DecisionForm | None = None,
        danger: bool = False,
    ) -> HttpResponse:
        """Ask on GET; on POST act with the form's values in a transaction that holds Django's log entry too.

        act: writes the audit itself; returns a page to show, or None to go back to the row. Where it raises
        InvalidRequest the form says so, where Conflict the row's page does.
        """
        form = form or DecisionForm(posted(request))
        if request.method == "POST" and form.is_valid():
            try:
                with transaction.atomic():
                    response = act(form.cleaned_data)
                    self.log_action(request, row, title)
            except InvalidRequest as error:
                form.add_error(error.param if error.param in form.fields else None, error.message)
            except Conflict as error:
                messages.error(request, error.message)
                return redirect(self.change_url(row))
            else:
                return response or redirect(self.change_url(row))
        context = {"title": title, "explanation": explanation, "form": form, "submit_text": submit, "danger": danger}
        return self._page(request, row, "admin/decide.html", context)

    def show_texts(
        self,
        request: HttpRequest,
        row: models.Model,
        *,
        title: str,
        explanation: str,
        read: Callable[[str], dict[str, str]],
    ) -> HttpResponse:
        """Ask on GET; on POST show texts that no cache keeps. read: (reason) -> texts by name; writes the audit."""
        form = DecisionForm(posted(request))
        texts = None
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                texts = read(posted_reason(request))
        context = {"title": title, "explanation": explanation, "form": form, "submit_text": "Show", "texts": texts}
        response = self._page(request, row, "admin/texts.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _page(self, request: HttpRequest, row: models.Model, template: str, context: dict[str, Any]) -> HttpResponse:
        own = {"opts": self.opts, "back_url": self.change_url(row), "subject": str(row)}
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **own, **context})

    def change_url(self, row: models.Model) -> str:
        """The address of the row's page."""
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])


class AuditedModelAdmin(Decisions, ModelAdmin):
    """Audits what people add, change and delete. There are no bulk actions: each change has its own entry."""

    actions = None
    show_facets = ShowFacets.NEVER
    list_filter_submit = True
    warn_unsaved_form = True
    change_form_after_template = "admin/reason.html"
    delete_confirmation_template = "admin/delete.html"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The row; for a POST locked, with its state kept for the audit's `before`."""
        found = super().get_object(request, object_id, from_field)
        if found is not None and request.method == "POST" and connection.in_atomic_block:
            self.model._base_manager.select_for_update().filter(pk=found.pk).values_list("pk").first()
            found = super().get_object(request, object_id, from_field)
        if found is not None and request.method == "POST":
            request.audit_before = self.snapshot(found)  # type: ignore[attr-defined]
        return found

    def snapshot(self, row: models.Model) -> Snapshot:
        """The row as it is stored now."""
        secrets = _stored_secrets(row)
        shown = copy.copy(row)
        for name, stored in secrets.items():
            setattr(shown, name, stored)  # so that nothing is decrypted to say that it is set
        values = audit.snapshot(shown)
        for inline in self.inlines:
            if inline.max_num != 0:  # 0: an inline that only shows
                values[str(inline.model._meta.verbose_name_plural)] = _rows_of(inline.model, row)
        return Snapshot(values, secrets)

    def record(
        self, request: HttpRequest, action: str, row: models.Model, before: Snapshot | None, after: Snapshot | None
    ) -> None:
        """Write the audit entry unless nothing differs."""
        if before and after:
            replaced = {name for name, stored in after.secrets.items() if stored != before.secrets.get(name)}
            marks = {name: "(replaced)" if after.secrets[name] else "(empty)" for name in replaced}
            after = Snapshot({**after.values, **marks}, after.secrets)
            if before.values == after.values:
                return
        audit.record(
            action,
            row,
            actor=request.user,
            reason=posted_reason(request),
            before=before.values if before else None,
            after=after.values if after else None,
        )

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Django's log entry and the audit's."""
        self.record(request, "create", obj, None, self.snapshot(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Django's log entry and the audit's."""
        self.record(request, "update", obj, getattr(request, "audit_before", None), self.snapshot(obj))
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Django's log entries and the audit's."""
        for row in queryset:
            self.record(request, "delete", row, self.snapshot(row), None)
        return super().log_deletions(request, queryset)

    def row_or_404(self, request: HttpRequest, object_id: str) -> Any:
        """The row that an action is about. Raises Http404, PermissionDenied."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row


class ReadOnlyModelAdmin(ModelAdmin):
    """Shows rows that nobody may add, change or delete by hand."""

    actions = None
    show_facets = ShowFacets.NEVER

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Without the link to a history: there is none."""
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), "show_history": False})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False


def posted(request: HttpRequest) -> Any:
    """A form's data: what was posted, even if that is nothing, or None for a form to fill in."""
    return request.POST if request.method == "POST" else None


def posted_reason(request: HttpRequest) -> str:
    """The reason that came with a form, cut and without what Postgres cannot hold."""
    posted = request.POST.get(REASON) or request.POST.get("reason") or ""
    return "".join(char for char in posted if char.isprintable())[: reasons.MOST].strip()


def secret_page(
    request: HttpRequest, admin: Any, *, title: str, secret: str, back_url: str, template: str = "admin/secret.html"
) -> HttpResponse:
    """A page by itself that shows a secret this one time and that no cache keeps."""
    context = {
        **admin.admin_site.each_context(request),
        "title": title,
        "secret": secret,
        "api_url": request.build_absolute_uri("/v1"),
        "back_url": back_url,
        "opts": admin.opts,
    }
    response = TemplateResponse(request, template, context)
    response["Cache-Control"] = "no-store"
    return response


def _stored_secrets(row: models.Model) -> dict[str, str]:
    names = [
        field.name
        for field in row._meta.concrete_fields
        if isinstance(field, EncryptedTextField) or field.name in audit.SECRET_FIELDS
    ]
    if not names:
        return {}
    stored = {f"stored_{name}": Cast(name, models.TextField()) for name in names}
    found = type(row)._base_manager.filter(pk=row.pk).values_list(*stored.values()).first() or [""] * len(names)
    return {name: value or "" for name, value in zip(names, found, strict=True)}


def _rows_of(model: type[models.Model], owner: models.Model) -> list[dict[str, Any]]:
    link = next(field.name for field in model._meta.concrete_fields if field.related_model is type(owner))
    found = model._base_manager.filter(**{link: owner.pk}).order_by("pk")
    return [{name: value for name, value in audit.snapshot(row).items() if name != link} for row in found]
