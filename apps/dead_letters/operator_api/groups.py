"""/ops/api/groups/: failure groups, whom they hurt, and what people decide about them."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, Strict, may, valid
from apps.dead_letters import group_states, grouping, queries, search
from apps.dead_letters.errors import GroupNotFound
from apps.dead_letters.models import FailureGroup
from apps.tasks import holds, states

LOOK = "dead_letters.view_failuregroup"
MayChange = may(grouping.MAY_CHANGE, LOOK)
MayHold = may(grouping.MAY_HOLD, LOOK)


class AssignBody(DecisionBody):
    """To whom."""

    owner = serializers.CharField(max_length=150, allow_blank=True, help_text="A user's name; empty: to nobody.")


class NoteBody(Strict):
    """In place of the note that is there."""

    text = serializers.CharField(max_length=grouping.MAX_NOTE, allow_blank=True)


class SnoozeBody(DecisionBody):
    """At least one; what comes first ends it."""

    until = serializers.DateTimeField(required=False, allow_null=True, default=None, help_text="Within a year.")
    more = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="Until it has failed so many times more."
    )


class HurtSerializer(serializers.Serializer[Any]):
    """An API key that the group has hit; of zeros: tasks without one. Names are empty where they are gone."""

    project = serializers.UUIDField(source="project_id")
    project_name = serializers.CharField(source="project")
    api_key = serializers.UUIDField(source="api_key_id")
    api_key_name = serializers.CharField(source="api_key")
    died = serializers.IntegerField()
    last_seen = serializers.DateTimeField()


class GroupSerializer(serializers.ModelSerializer[FailureGroup]):
    """Letters with one fingerprint. Counts are the clock's, a second old."""

    title = serializers.CharField(source="__str__", help_text="Code, upstream and kind.")
    state = serializers.ChoiceField(choices=group_states.ALL)
    status = serializers.IntegerField(allow_null=True, help_text="The provider's HTTP status, or our own.")
    owner = serializers.SerializerMethodField(help_text="A user's name, or null.")
    held = serializers.SerializerMethodField(help_text="Whether its failures are not retried any more.")
    running_count = serializers.IntegerField(help_text="Redriven tasks that have not ended.")
    sparkline = serializers.SerializerMethodField(help_text="Letters of each of the last 24 hours, the oldest first.")

    class Meta:
        model = FailureGroup
        fields = (
            "fingerprint", "title", "state", "kind", "queue", "upstream", "code", "status", "message", "first_seen",
            "last_seen", "state_changed_at", "snoozed_until", "snooze_after", "owner", "note", "held", "died_count",
            "open_count", "redriven_count", "running_count", "succeeded_count", "failed_count", "cancelled_count",
            "discarded_count", "key_count", "sparkline",
        )  # fmt: skip

    def get_owner(self, group: FailureGroup) -> str | None:
        """By name."""
        return group.owner.get_username() if group.owner else None

    def get_held(self, group: FailureGroup) -> bool:
        """Of the page's, which were asked for at once."""
        return group.pk in self.context["held"]

    def get_sparkline(self, group: FailureGroup) -> list[int]:
        """Of the page's, which were asked for at once."""
        found: list[int] = self.context["sparklines"].get(group.pk, [0] * queries.DAY)
        return found


class GroupDetailSerializer(GroupSerializer):
    """With whom it hurts: the ten API keys that it has hit most."""

    hurts = serializers.SerializerMethodField()

    class Meta:
        model = FailureGroup
        fields = (*GroupSerializer.Meta.fields, "hurts")

    @extend_schema(responses=HurtSerializer(many=True))
    def get_hurts(self, group: FailureGroup) -> list[dict[str, Any]]:
        """Most first."""
        return list(HurtSerializer(queries.hurt(group.pk), many=True).data)


class GroupFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not; both are of the last failure."""

    q = django_filters.CharFilter(method="by_search", help_text=search.HELP)
    state = django_filters.ChoiceFilter(choices=[(state, state) for state in group_states.ALL])
    queue = django_filters.ChoiceFilter(choices=[(name, name) for name in states.QUEUES])
    kind = django_filters.CharFilter(help_text="A kind of task, also one that no code knows any more.")
    code = django_filters.CharFilter(help_text="An error code, such as model_error.")
    project = django_filters.UUIDFilter(method="by_project", help_text="Groups that have hit it.")
    since = django_filters.IsoDateTimeFilter(field_name="last_seen", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="last_seen", lookup_expr="lt")

    class Meta:
        model = FailureGroup
        fields = ()

    def by_search(self, rows: "QuerySet[FailureGroup]", name: str, value: str) -> "QuerySet[FailureGroup]":
        """Those that a search finds."""
        return rows & search.groups(search.parse(value))

    def by_project(self, rows: "QuerySet[FailureGroup]", name: str, value: UUID) -> "QuerySet[FailureGroup]":
        """Those that have hit it."""
        return search.of_project(rows, value)


class GroupViewSet(viewsets.ReadOnlyModelViewSet[FailureGroup]):
    """Failure groups, the last that failed first.

    Filters, all of which must match: q (a search), state, kind, queue, code, project, since, until. To redrive or
    discard a group's letters make a bulk operation of it: `POST /ops/api/bulk/`.
    """

    queryset: Any = FailureGroup.objects.all()
    serializer_class = GroupSerializer
    filterset_class = GroupFilter
    page_order = ("-last_seen", "-fingerprint")
    lookup_field = "fingerprint"
    lookup_value_regex = "[^/]+"

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """A page of groups."""
        page: Any = self.paginate_queryset(self.filter_queryset(self.get_queryset()).select_related("owner"))
        return self.get_paginated_response(GroupSerializer(page, many=True, context=_context(page)).data)

    @extend_schema(responses=GroupDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One group and whom it hurts."""
        return _shown(kwargs["fingerprint"])

    @extend_schema(request=AssignBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayChange])
    def assign(self, request: Request, fingerprint: str) -> Response:
        """Give it to a member of the staff, or to nobody. One that waits for a look is then open."""
        return self._decide(grouping.assign, fingerprint, AssignBody)

    @extend_schema(request=NoteBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayChange])
    def note(self, request: Request, fingerprint: str) -> Response:
        """Replace its note."""
        return self._decide(grouping.note, fingerprint, NoteBody)

    @extend_schema(request=SnoozeBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayChange])
    def snooze(self, request: Request, fingerprint: str) -> Response:
        """Hide it for a while. 409: it is snoozed or resolved already."""
        return self._decide(grouping.snooze, fingerprint, SnoozeBody)

    @extend_schema(request=DecisionBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayChange])
    def resolve(self, request: Request, fingerprint: str) -> Response:
        """Be done with it; its letters stay as they are. If it fails again it is regressed."""
        return self._decide(grouping.resolve, fingerprint, DecisionBody)

    @extend_schema(request=DecisionBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayChange])
    def reopen(self, request: Request, fingerprint: str) -> Response:
        """Work on it: it was looked at, or is taken up again. 409: it is open already."""
        return self._decide(grouping.reopen, fingerprint, DecisionBody)

    @extend_schema(request=DecisionBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayHold])
    def hold(self, request: Request, fingerprint: str) -> Response:
        """Let none of its failures be retried by itself: its tasks die at once, with a letter."""
        return self._decide(grouping.hold, fingerprint, DecisionBody)

    @extend_schema(request=DecisionBody, responses=GroupDetailSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayHold])
    def release(self, request: Request, fingerprint: str) -> Response:
        """End a hold. 409: there is none."""
        return self._decide(grouping.release, fingerprint, DecisionBody)

    def _decide(self, verb: Callable[..., Any], fingerprint: str, body: type[Strict]) -> Response:
        verb(fingerprint, actor=self.request.user, **valid(body, self.request))
        return _shown(fingerprint)


def _shown(fingerprint: str) -> Response:
    group = FailureGroup.objects.select_related("owner").filter(pk=fingerprint).first()
    if group is None:
        raise GroupNotFound()
    return Response(GroupDetailSerializer(group, context=_context([group])).data)


def _context(groups: Sequence[FailureGroup]) -> dict[str, Any]:
    names = [group.pk for group in groups]
    return {"held": holds.held(names), "sparklines": queries.sparklines(names)}
