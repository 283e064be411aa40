"""Django's users and groups and axes' logins in the product's look, audited like everything else."""

from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.access.audited_admin import AuditedModelAdmin, ReadOnlyModelAdmin

POWERS = ("is_superuser", "groups", "user_permissions")


class UserAdmin(DjangoUserAdmin, AuditedModelAdmin):  # type: ignore[misc, type-arg]
    """Operators. They are made inactive, not deleted, so that their history keeps its name."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    readonly_fields = ("last_login", "date_joined")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only who may do all that an account may do changes it: whoever sets a password holds the account."""
        may: bool = super().has_change_permission(request, obj)
        if not may or obj is None or request.user.is_superuser:
            return may
        return not obj.is_superuser and obj.get_all_permissions() <= request.user.get_all_permissions()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nobody gives away, or takes, rights without being a superuser."""
        return self.readonly_fields if request.user.is_superuser else (*self.readonly_fields, *POWERS)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Django's page, with its audit entry in the same transaction."""
        with transaction.atomic():
            response: HttpResponse = super().user_change_password(request, id, form_url)
        return response


class GroupAdmin(DjangoGroupAdmin, AuditedModelAdmin):  # type: ignore[misc]
    """Groups of permissions; only superusers change them."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """See UserAdmin.get_readonly_fields."""
        return request.user.is_superuser and super().has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """See UserAdmin.get_readonly_fields."""
        return request.user.is_superuser and super().has_add_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """See UserAdmin.get_readonly_fields."""
        return request.user.is_superuser and super().has_delete_permission(request, obj)


class _NewestLoginsFirst:
    search_fields = ("username", "ip_address")
    search_help_text = "Search by user or address"
    ordering = ("-attempt_time",)
    show_full_result_count = False


class AccessAttemptAdmin(_NewestLoginsFirst, AuditedModelAdmin):
    """Refused logins. Deleting one lets its user try again from that address."""

    list_display = ("attempt_time", "username", "ip_address", "failures_since_start", "user_agent")
    fields = ("attempt_time", "username", "ip_address", "failures_since_start", "path_info", "user_agent")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: rows are looked at, or deleted."""
        return False


class AccessLogAdmin(_NewestLoginsFirst, ReadOnlyModelAdmin):
    """Who logged in, and from where."""

    list_display = ("attempt_time", "username", "ip_address", "logout_time", "user_agent")
    fields = ("attempt_time", "logout_time", "username", "ip_address", "path_info", "user_agent")


def register() -> None:
    """Put ours in place of theirs; after all apps have registered."""
    for model in (User, Group, AccessAttempt, AccessLog, AccessFailureLog):
        if admin.site.is_registered(model):
            admin.site.unregister(model)
    admin.site.register(User, UserAdmin)
    admin.site.register(Group, GroupAdmin)
    admin.site.register(AccessAttempt, AccessAttemptAdmin)
    admin.site.register(AccessLog, AccessLogAdmin)
