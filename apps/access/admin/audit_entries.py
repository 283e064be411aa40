"""The admin of the audit: to read only."""

from django.contrib import admin

from apps.access.keyset_admin import DayRangeFilter, KeysetModelAdmin
from apps.access.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(KeysetModelAdmin):
    """Who did what, when and why. Nobody can change it."""

    keyset_field = "at"
    list_display = ("at", "actor", "action", "object_type", "object_name", "reason")
    list_filter = (("at", DayRangeFilter),)
    search_fields = ("actor__exact", "action__exact", "object_type__exact", "object_id__exact", "object_name__exact")
    search_help_text = "Exact: a user, an action, a type such as access.apikey, an object's name or id"
    fields = (
        "at", "actor", "action", "object_type", "object_name", "object_id", "reason", "request_id", "before", "after",
    )  # fmt: skip
