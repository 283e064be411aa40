"""/ops/api/bulk/: bulk operations: planned, started, watched, and steered while they run."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, Strict, may, valid
from apps.dead_letters import bulk_states
from apps.dead_letters.bulk import control, plan
from apps.dead_letters.errors import OperationNotFound
from apps.dead_letters.models import BulkItem, BulkOperation
from apps.dead_letters.operator_api.bulk_bodies import (
    CreateBody,
    ItemSerializer,
    OperationDetailSerializer,
    OperationSerializer,
    PaceBody,
    StartBody,
)

# What is needed besides depends on what the operation does: its verbs ask for that.
MayLook = may("dead_letters.view_bulkoperation")


class OperationFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    state = django_filters.ChoiceFilter(choices=[(state, state) for state in bulk_states.ALL])
    action = django_filters.ChoiceFilter(choices=BulkOperation.Action.choices)
    group = django_filters.CharFilter(method="by_group", help_text="A whole fingerprint: those made of it by name.")
    since = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = BulkOperation
        fields = ()

    def by_group(self, rows: "QuerySet[BulkOperation]", name: str, value: str) -> "QuerySet[BulkOperation]":
        """Those that name the group."""
        return rows.filter(groups__contains=[value])


class ItemFilter(django_filters.FilterSet):  # type: ignore[misc]
    """Of an operation's letters."""

    state = django_filters.ChoiceFilter(choices=[(state, state) for state in bulk_states.ITEM_STATES])


class BulkViewSet(viewsets.ReadOnlyModelViewSet[BulkOperation]):
    """Bulk operations, newest first. Filters: state, action, group, since, until.

    One is made, counted by the clock (`counting`, then `ready`), started, held for ten seconds (`holding`: undo), tried
    on a few letters (`canary`), then `running` at its pace; it stops by itself where too much fails again.
    """

    queryset: Any = BulkOperation.objects.all()
    serializer_class = OperationSerializer
    filterset_class = OperationFilter

    @property
    def page_order(self) -> tuple[str, ...]:
        """Items have no time of their own."""
        return ("-letter_id",) if self.action == "items" else ("-created_at", "-id")

    def get_permissions(self) -> Any:
        """To make one: what its verb asks for, and the permission to look."""
        return [MayLook()] if self.action == "create" else super().get_permissions()

    @extend_schema(request=CreateBody, responses={202: OperationSerializer})
    def create(self, request: Request) -> Response:
        """Make an operation; it is counted in the background, and nothing is decided before it is started.

        Its letters are those that match now; later ones are none of its business. 409: another operation works on one
        of the groups; `details` names both.
        """
        values = valid(CreateBody, request)
        values["query"] = values.pop("q")
        made = plan.create(values.pop("action"), actor=request.user, **values)
        headers = {"Location": reverse("bulk-detail", args=[made.pk]), "Retry-After": "1"}
        made.refresh_from_db()
        return Response(OperationSerializer(made).data, status=202, headers=headers)

    @extend_schema(responses=OperationDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One operation: what it is about, how far it is, what failed again."""
        return Response(OperationDetailSerializer(control.find(_id(kwargs["pk"]))).data)

    @extend_schema(responses=ItemSerializer(many=True))
    @action(detail=True, filterset_class=ItemFilter)
    def items(self, request: Request, pk: str) -> Response:
        """Its letters and what became of each, the newest letter first."""
        rows: Any = BulkItem.objects.filter(operation_id=control.find(_id(pk)).pk)
        page: Any = self.paginate_queryset(self.filter_queryset(rows))
        return self.get_paginated_response(ItemSerializer(page, many=True).data)

    @extend_schema(request=StartBody, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def start(self, request: Request, pk: str) -> Response:
        """Let a counted one (`ready`) go, after a hold of ten seconds."""
        return self._decide(control.start, StartBody)

    @extend_schema(request=None, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def undo(self, request: Request, pk: str) -> Response:
        """Take the start back, within the hold."""
        return self._decide(control.undo, Strict)

    @extend_schema(request=DecisionBody, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def pause(self, request: Request, pk: str) -> Response:
        """Release nothing more for now; what was released goes on."""
        return self._decide(control.pause, DecisionBody)

    @extend_schema(request=DecisionBody, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def resume(self, request: Request, pk: str) -> Response:
        """Go on after a pause, or after it stopped by itself: then what has failed so far is let pass."""
        return self._decide(control.resume, DecisionBody)

    @extend_schema(request=PaceBody, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def pace(self, request: Request, pk: str) -> Response:
        """Go faster or slower, at any time before its end."""
        return self._decide(control.change_pace, PaceBody)

    @extend_schema(request=DecisionBody, responses=OperationSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayLook])
    def cancel(self, request: Request, pk: str) -> Response:
        """End it: what was not released stays as it was."""
        return self._decide(control.cancel, DecisionBody)

    def _decide(self, verb: Callable[..., BulkOperation], body: type[Strict]) -> Response:
        values = valid(body, self.request)
        return Response(OperationSerializer(verb(_id(self.kwargs["pk"]), actor=self.request.user, **values)).data)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise OperationNotFound() from None
