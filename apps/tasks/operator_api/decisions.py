"""What the addresses that act share: who may, what the body says, and that nothing unknown is in it."""

from typing import Any

from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.access.audited_admin import REASON_LENGTH


class May(BasePermission):
    """All of `permissions`, those of the admin's action and of the page that it is on."""

    permissions: tuple[str, ...]

    def has_permission(self, request: Request, view: Any) -> bool:
        """Of the person who is logged in."""
        return request.user.has_perms(self.permissions)


class Strict(serializers.Serializer[Any]):
    """A body whose unknown fields are refused."""

    def to_internal_value(self, data: Any) -> Any:
        """Raises ValidationError that names an unknown field."""
        if isinstance(data, dict):
            for name in data:
                if name not in self.fields and name != "csrfmiddlewaretoken":
                    raise serializers.ValidationError({str(name)[:100]: ["There is no such field."]})
        return super().to_internal_value(data)


class DecisionBody(Strict):
    """What is kept in the audit."""

    reason = serializers.CharField(max_length=REASON_LENGTH, required=False, allow_blank=True, default="")


def valid(body: type[Strict], request: Request) -> dict[str, Any]:
    """The values of a body. Raises ValidationError."""
    found = body(data=request.data)
    found.is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values
