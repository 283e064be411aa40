"""/ops/api/letters/: dead letters, what was tried, and what people decide about each."""

from collections.abc import Callable
from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, ReasonBody, Strict, may, valid
from apps.core.database import related
from apps.dead_letters import queries, search, states, triage
from apps.dead_letters.errors import LetterNotFound
from apps.dead_letters.models import DeadLetter
from apps.tasks import payloads
from apps.tasks import search as task_search
from apps.tasks import states as task_states
from apps.tasks.models import Task, shown_id
from apps.tasks.operator_api.tasks import AttemptSerializer

LOOK = "dead_letters.view_deadletter"
MayRedrive = may(triage.MAY_REDRIVE, LOOK)
MayDiscard = may(triage.MAY_DISCARD, LOOK)
MayEdit = may(triage.MAY_EDIT, LOOK)


class DiscardBody(ReasonBody):
    """Why, in words and as a code."""

    code = serializers.ChoiceField(
        choices=DeadLetter.DiscardCode.choices, required=False, default=DeadLetter.DiscardCode.OTHER.value
    )


class EditBody(ReasonBody):
    """The edited payload."""

    revision = serializers.IntegerField(help_text="The one that the draft was made of. 409: there is a later one.")
    payload = serializers.CharField(trim_whitespace=False, help_text="JSON text: the arguments of the task's kind.")


class DraftSerializer(serializers.Serializer[Any]):
    """The payload to edit."""

    revision = serializers.IntegerField()
    payload = serializers.CharField(source="text", help_text="JSON text in the kind's present version.")


class RevisionSerializer(serializers.Serializer[Any]):
    """A stored payload without its words. The last one counts."""

    number = serializers.IntegerField()
    size = serializers.IntegerField(help_text="Bytes.")
    created_at = serializers.DateTimeField()


class ErrorSerializer(serializers.Serializer[Any]):
    """What the last attempt died of."""

    code = serializers.CharField(source="error_code")
    status = serializers.IntegerField(source="error_status", allow_null=True)
    message = serializers.CharField(source="error_message")
    upstream = serializers.CharField()


class LetterSerializer(serializers.ModelSerializer[DeadLetter]):
    """One death of a task, without the task's texts."""

    id = serializers.SerializerMethodField(help_text="letter_...")
    task = serializers.SerializerMethodField(help_text="task_...")
    group = serializers.CharField(source="group_id", help_text="The fingerprint of its failure group.")
    title = serializers.SerializerMethodField(help_text="Of its group.")
    project = serializers.UUIDField(source="project_id")
    api_key = serializers.UUIDField(source="api_key_id", allow_null=True)
    operation = serializers.UUIDField(source="operation_id", allow_null=True, help_text="That decided it.")

    class Meta:
        model = DeadLetter
        fields = (
            "id", "task", "cycle", "group", "title", "project", "api_key", "kind", "queue", "state", "code", "attempts",
            "created_at", "reviewed_at", "decided_at", "decided_by", "reason", "discard_code", "operation", "outcome",
        )  # fmt: skip

    def get_id(self, letter: DeadLetter) -> str:
        """As people and scripts know it."""
        return queries.shown_id(letter.pk)

    def get_task(self, letter: DeadLetter) -> str:
        """As clients know it."""
        return shown_id(letter.task_id)

    def get_title(self, letter: DeadLetter) -> str:
        """Its code where the group is gone."""
        return str(related(letter, "group") or letter.code)


class LetterDetailSerializer(LetterSerializer):
    """With its error, what was tried (the last hundred attempts, of all cycles), and the payload's revisions."""

    error = serializers.SerializerMethodField()
    message = serializers.SerializerMethodField(help_text="The group's: normalised, as of its first letter.")
    timeline = serializers.SerializerMethodField()
    revisions = serializers.SerializerMethodField()

    class Meta:
        model = DeadLetter
        fields = (*LetterSerializer.Meta.fields, "error", "message", "timeline", "revisions")

    @extend_schema(responses=ErrorSerializer(allow_null=True))
    def get_error(self, letter: DeadLetter) -> dict[str, Any] | None:
        """Null where its attempts are gone."""
        died = [one for one in self.context["timeline"] if one.cycle == letter.cycle and one.error_code]
        return dict(ErrorSerializer(died[-1]).data) if died else None

    def get_message(self, letter: DeadLetter) -> str:
        """Empty where the group is gone."""
        group = related(letter, "group")
        return group.message if group else ""

    @extend_schema(responses=AttemptSerializer(many=True))
    def get_timeline(self, letter: DeadLetter) -> list[dict[str, Any]]:
        """First to last."""
        return list(AttemptSerializer(self.context["timeline"], many=True).data)

    @extend_schema(responses=RevisionSerializer(many=True))
    def get_revisions(self, letter: DeadLetter) -> list[dict[str, Any]]:
        """First to last."""
        return list(RevisionSerializer(payloads.latest(letter.task_id)[1], many=True).data)


class LetterFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    q = django_filters.CharFilter(method="by_search", help_text=search.HELP)
    state = django_filters.ChoiceFilter(choices=[(state, state) for state in states.ALL])
    queue = django_filters.ChoiceFilter(choices=[(name, name) for name in task_states.QUEUES])
    kind = django_filters.CharFilter(help_text="A kind of task, also one that no code knows any more.")
    code = django_filters.CharFilter(help_text="An error code, such as model_error.")
    project = django_filters.UUIDFilter(field_name="project_id")
    group = django_filters.CharFilter(field_name="group_id", help_text="A whole fingerprint.")
    operation = django_filters.UUIDFilter(field_name="operation_id", help_text="Letters that it decided.")
    since = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = DeadLetter
        fields = ()

    def by_search(self, rows: "QuerySet[DeadLetter]", name: str, value: str) -> "QuerySet[DeadLetter]":
        """Those that a search finds."""
        return rows & search.letters(search.parse(value))


class LetterViewSet(viewsets.ReadOnlyModelViewSet[DeadLetter]):
    """Dead letters, newest first.

    Filters, all of which must match: q (a search), state, kind, queue, code, project, group, operation, since, until.
    """

    queryset: Any = DeadLetter.objects.prefetch_related("group")
    serializer_class = LetterSerializer
    filterset_class = LetterFilter

    def get_object(self) -> DeadLetter:
        """By its id, letter_... or a UUID. Raises LetterNotFound."""
        found: DeadLetter | None = self.queryset.filter(pk=queries.letter_id(self.kwargs["pk"])).first()
        if found is None:
            raise LetterNotFound()
        return found

    @extend_schema(responses=LetterDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One letter with its error and all that was tried."""
        letter = self.get_object()
        task = Task.objects.filter(pk=letter.task_id).first()
        context = {"timeline": task_search.timeline(task) if task else []}
        return Response(LetterDetailSerializer(letter, context=context).data)

    @extend_schema(request=DecisionBody, responses=LetterSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayRedrive])
    def redrive(self, request: Request, pk: str) -> Response:
        """Put the task back to work, with fresh retries. 409: somebody has decided already."""
        return self._decide(triage.redrive, DecisionBody)

    @extend_schema(request=DiscardBody, responses=LetterSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayDiscard])
    def discard(self, request: Request, pk: str) -> Response:
        """Decide that the task will not run again; it can be restored until retention deletes it."""
        return self._decide(triage.discard, DiscardBody)

    @extend_schema(request=DecisionBody, responses=LetterSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayDiscard])
    def restore(self, request: Request, pk: str) -> Response:
        """Open a discarded letter again."""
        return self._decide(triage.restore, DecisionBody)

    @extend_schema(request=DecisionBody, responses=DraftSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayEdit])
    def draft(self, request: Request, pk: str) -> Response:
        """The payload, to edit it. A POST, because each look is kept in the audit."""
        reason = valid(DecisionBody, request)["reason"]
        found = triage.draft(queries.letter_id(pk), actor=request.user, reason=reason)
        return Response(DraftSerializer(found).data, headers={"Cache-Control": "no-store"})

    @extend_schema(request=EditBody, responses=LetterSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayEdit])
    def edit(self, request: Request, pk: str) -> Response:
        """Redrive with an edited payload; the one before stays as a revision. 400: `param` is the field at fault."""
        values = valid(EditBody, request)
        values["text"] = values.pop("payload")
        triage.edit_and_redrive(queries.letter_id(pk), actor=request.user, **values)
        return Response(LetterSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=LetterSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayRedrive])
    def review(self, request: Request, pk: str) -> Response:
        """Note that somebody looked at it; the state stays. Of a decided letter, or a second time: nothing changes."""
        valid(Strict, request)
        triage.review([self.get_object().pk], actor=request.user)
        return Response(LetterSerializer(self.get_object()).data)

    def _decide(self, verb: Callable[..., Any], body: type[Strict]) -> Response:
        values = valid(body, self.request)
        verb(queries.letter_id(self.kwargs["pk"]), actor=self.request.user, **values)
        return Response(LetterSerializer(self.get_object()).data)
