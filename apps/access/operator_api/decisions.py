"""What the addresses that act share: who may, what the body says, and that nothing unknown is in it."""

from typing import Any

from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.access import reasons


class May(BasePermission):
    """All of `permissions`, those of the admin's action and of the page that it is on."""

    permissions: tuple[str, ...]

    def has_permission(self, request: Request, view: Any) -> bool:
        """Of the person who is logged in."""
        missing = [name for name in self.permissions if not request.user.has_perm(name)]
        self.message = f"Your account may not do that: it needs the permission {', '.join(missing)}."
        return not missing


def may(*permissions: str) -> type[May]:
    """A class that asks for these."""
    return type("May", (May,), {"permissions": permissions})


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

    reason = serializers.CharField(
        max_length=reasons.MOST, required=False, allow_blank=True, default="", help_text="Why; kept in the audit."
    )


class ReasonBody(Strict):
    """What is kept in the audit, and must be said."""

    reason = serializers.CharField(max_length=reasons.MOST, help_text="Why; kept in the audit.")


def valid(body: type[Strict], request: Request) -> dict[str, Any]:
    """The values of a body. Raises ValidationError."""
    found = body(data=request.data)
    found.is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values
