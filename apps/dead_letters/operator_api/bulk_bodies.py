"""The bodies of /ops/api/bulk/: what is asked for, and what an operation looks like."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from apps.access.operator_api.decisions import DecisionBody, Strict
from apps.completions.models import NUSD
from apps.dead_letters import bulk_states, queries, search
from apps.dead_letters.bulk import report
from apps.dead_letters.models import BulkItem, BulkOperation, DeadLetter
from apps.tasks.models import shown_id


class CreateBody(Strict):
    """What to do with which letters: all that match groups, q and source, those that are given."""

    action = serializers.ChoiceField(choices=BulkOperation.Action.choices)
    groups = serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=False,
        default=list,
        help_text="Fingerprints, at most 1,000.",
    )
    q = serializers.CharField(
        max_length=search.LONGEST, required=False, allow_blank=True, default="", help_text=search.HELP
    )
    source = serializers.UUIDField(  # type: ignore[assignment]
        required=False, allow_null=True, default=None, help_text="An operation whose discards are to be restored."
    )


class PaceBody(Strict):
    """What is left out stays as it is."""

    rate = serializers.FloatField(
        required=False, allow_null=True, default=None, help_text="Letters a second, 0.01 to 1,000."
    )
    max_in_flight = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="Redriven tasks that may be unfinished at once."
    )


class StartBody(PaceBody, DecisionBody):
    """The terms. A discard needs a reason."""

    confirm = serializers.IntegerField(
        required=False, allow_null=True, default=None,
        help_text="How many letters it is about (`pending`): needed above 1,000, of a discard above 100.",
    )  # fmt: skip
    code = serializers.ChoiceField(
        choices=DeadLetter.DiscardCode.choices, required=False, allow_blank=True, default="", help_text="Of a discard."
    )
    canary = serializers.IntegerField(
        required=False, allow_null=True, default=None,
        help_text="Letters that must succeed before the others go. Left out: 3 above 20 letters, else none.",
    )  # fmt: skip
    stop_percent = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="Failures again at which it stops by itself; 20."
    )


class OperationSerializer(serializers.ModelSerializer[BulkOperation]):
    """A bulk operation and its counts."""

    q = serializers.CharField(source="query")
    groups = serializers.ListField(child=serializers.CharField())
    cost_usd = serializers.SerializerMethodField(help_text="Estimated, of a redrive; null if unknown.")
    pending = serializers.IntegerField(help_text="Letters that are still to be released.")
    in_flight = serializers.IntegerField(help_text="Redriven tasks that have not ended.")

    class Meta:
        model = BulkOperation
        fields = (
            "id", "action", "state", "title", "groups", "q", "source", "reason", "discard_code", "created_by",
            "created_at", "counted_at", "cost_usd", "rate", "max_in_flight", "canary", "stop_percent", "started_by",
            "started_at", "stop_reason", "finished_at", "total", "pending", "skipped", "released", "in_flight",
            "succeeded", "failed", "cancelled",
        )  # fmt: skip

    def get_cost_usd(self, operation: BulkOperation) -> float | None:
        """In US dollars."""
        return operation.cost_nusd / NUSD if operation.cost_nusd is not None else None


class SkipSerializer(serializers.Serializer[Any]):
    """Why letters were left alone, and how many."""

    cause = serializers.CharField()
    letters = serializers.IntegerField()


class AgainSerializer(serializers.Serializer[Any]):
    """A group that redriven tasks died into, and how many."""

    group = serializers.CharField()
    title = serializers.CharField()
    letters = serializers.IntegerField()


class ReportSerializer(serializers.Serializer[Any]):
    """How far it is and what came of it."""

    percent = serializers.IntegerField(help_text="Of the letters that are decided, their redriven tasks ended.")
    seconds_left = serializers.FloatField(
        allow_null=True, help_text="At the present pace; longer where what is in flight holds it up."
    )
    hold_left = serializers.FloatField(help_text="Seconds in which the start can be undone.")
    skips = SkipSerializer(many=True)
    failed_again = AgainSerializer(many=True)


class OperationDetailSerializer(OperationSerializer):
    """With what it is about (by kind, key, age, group, model: [name, letters] each) and its report."""

    breakdown = serializers.JSONField()
    report = serializers.SerializerMethodField()

    class Meta:
        model = BulkOperation
        fields = (*OperationSerializer.Meta.fields, "breakdown", "report")

    @extend_schema(responses=ReportSerializer)
    def get_report(self, operation: BulkOperation) -> dict[str, Any]:
        """As of now."""
        found = report.of(operation)
        return {
            "percent": found.percent,
            "seconds_left": found.seconds_left,
            "hold_left": found.hold_left,
            "skips": [{"cause": cause, "letters": letters} for cause, letters in found.skips],
            "failed_again": [
                {"group": group, "title": title, "letters": letters} for group, title, letters in found.failed_again
            ],
        }


class ItemSerializer(serializers.Serializer[Any]):
    """One letter of the operation."""

    letter = serializers.SerializerMethodField(help_text="letter_...")
    task = serializers.SerializerMethodField(help_text="task_...")
    group = serializers.CharField(source="group_id")
    state = serializers.ChoiceField(choices=bulk_states.ITEM_STATES)
    cause = serializers.CharField(help_text="Why it was skipped.")
    outcome = serializers.CharField(
        help_text="How the redriven task ended: succeeded, dead, cancelled; of others the action. Empty: not yet."
    )

    def get_letter(self, item: BulkItem) -> str:
        """As people and scripts know it."""
        return queries.shown_id(item.letter_id)

    def get_task(self, item: BulkItem) -> str:
        """As clients know it."""
        return shown_id(item.task_id)
