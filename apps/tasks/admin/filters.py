"""How the list of tasks is narrowed: by names of the code, and by days that are found through the ids."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from apps.access.keyset_admin import DayRangeFilter, NameFilter
from apps.tasks import kinds, search, states


class KindFilter(NameFilter):
    """By kind; the catalogue's, not the table's, which is long."""

    title = parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All kinds."""
        return [(name, name) for name in kinds.names()]


class QueueFilter(NameFilter):
    """By queue."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All queues."""
        return [(name, name) for name in states.QUEUES]


class AcceptedFilter(DayRangeFilter):
    """By the days of the accept."""

    def between(self, queryset: "QuerySet[Any]", since: datetime | None, until: datetime | None) -> "QuerySet[Any]":
        """See search.created_between."""
        return search.created_between(queryset, since, until)
