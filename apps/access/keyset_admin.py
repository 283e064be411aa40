"""Lists of long tables that stay fast with millions of rows: newest first, by (time, id) or by id, never counted."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter, RelatedDropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList

from apps.access.audited_admin import ReadOnlyModelAdmin

OLDER, NEWER = "older", "newer"


class KeysetChangeList(ChangeList):
    """A page is found through the index on (time, id), whichever page it is: `?older=<time>_<id>`, or by `<id>`."""

    def get_filters_params(self, params: Any = None) -> Any:
        """The filters without the page."""
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in {OLDER, NEWER}}

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str]:
        """Newest first, always: any other order would have to sort the table."""
        return list(dict.fromkeys([f"-{self.model_admin.keyset_field}", "-pk"]))

    def get_results(self, request: HttpRequest) -> None:
        """One row more than a page is read, to know whether there is a next page."""
        field, size = self.model_admin.keyset_field, self.list_per_page
        older, newer = (_cursor(request.GET.get(way), by_id=field == "pk") for way in (OLDER, NEWER))
        if newer:
            rows = list(_beyond(self.queryset.order_by(field, "pk"), field, newer, "gt")[: size + 1])
            self.has_newer, self.has_older = len(rows) > size, True
            rows = rows[:size][::-1]
        else:
            queryset = _beyond(self.queryset, field, older, "lt") if older else self.queryset
            rows = list(queryset[: size + 1])
            self.has_newer, self.has_older = older is not None, len(rows) > size
            rows = rows[:size]
        self.result_list = rows
        self.result_count = len(rows)
        self.full_result_count = len(rows)  # equal to the one above: unfold then shows no "(Show all)"
        self.show_full_result_count = self.show_admin_actions = self.can_show_all = self.multi_page = False
        self.paginator = self.model_admin.get_paginator(request, rows, size)

    @property
    def older_url(self) -> str:
        """The next page's query string."""
        return self._page_url(OLDER, -1) if self.has_older and self.result_list else ""

    @property
    def newer_url(self) -> str:
        """The previous page's query string."""
        return self._page_url(NEWER, 0) if self.has_newer and self.result_list else ""

    @property
    def newest_url(self) -> str:
        """The first page's query string."""
        return str(self.get_query_string(remove=[OLDER, NEWER]))

    def _page_url(self, name: str, index: int) -> str:
        row, field = self.result_list[index], self.model_admin.keyset_field
        cursor = str(row.pk) if field == "pk" else f"{getattr(row, field).isoformat()}_{row.pk}"
        return str(self.get_query_string({name: cursor}, remove=[OLDER, NEWER]))


class KeysetModelAdmin(ReadOnlyModelAdmin):
    """Read-only list. keyset_field: the table's time, indexed together with the id, or `pk` where ids are in order."""

    keyset_field = "created_at"
    list_per_page = 50
    show_full_result_count = False
    sortable_by = ()
    list_filter_submit = True
    change_list_template = "admin/keyset_change_list.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """The list that pages by keyset."""
        return KeysetChangeList


class OwnedModelAdmin(KeysetModelAdmin):
    """Rows of projects. Names come by queries of their own: a join would hide the rows of one that was deleted.

    shown_relations: what else is shown of each row.
    """

    shown_relations: tuple[str, ...] = ("project", "api_key")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """With the names."""
        found: QuerySet[Any] = super().get_queryset(request)
        return found.prefetch_related(*self.shown_relations)

    @display(description="project")
    def project_name(self, row: Any) -> str:
        """Its name, or its id if it is gone."""
        return str(related(row, "project") or row.project_id)

    @display(description="API key")
    def key_name(self, row: Any) -> str:
        """Its name, or its id if it is gone."""
        return str(related(row, "api_key") or row.api_key_id or "")


def related(row: Any, name: str) -> Any:
    """What a prefetched foreign key without a constraint points to; None if that is gone."""
    return row._state.fields_cache.get(name)


class NameFilter(DropdownFilter):
    """Rows whose column equals one of the names that exist now; not read from the table, which is long."""

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """The rows with that name."""
        chosen = self.value()
        return queryset.filter(**{self.parameter_name: chosen}) if chosen and "\0" not in chosen else queryset


class OwnerFilter(RelatedDropdownFilter):
    """Also where there is only one to choose: Django would then drop the filter, and a link to it would lie."""

    def has_output(self) -> bool:
        """Always."""
        return True


class DayRangeFilter(RangeDateFilter):
    """From the first day's beginning to the last day's end, in UTC."""

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """The rows of those days; a day that is none is left out."""
        since, last = (self._day(f"{self.parameter_name}_{end}") for end in ("from", "to"))
        return self.between(queryset, since, last + timedelta(days=1) if last is not None else None)

    def between(self, queryset: "QuerySet[Any]", since: datetime | None, until: datetime | None) -> "QuerySet[Any]":
        """The rows at or after `since` and before `until`."""
        if since is not None:
            queryset = queryset.filter(**{f"{self.parameter_name}__gte": since})
        if until is not None:
            queryset = queryset.filter(**{f"{self.parameter_name}__lt": until})
        return queryset

    def _day(self, name: str) -> datetime | None:
        try:
            return timezone.make_aware(datetime.strptime(self.used_parameters.get(name, ""), "%Y-%m-%d"))
        except (ValueError, TypeError, OverflowError):
            return None


def _cursor(text: str | None, *, by_id: bool) -> tuple[datetime | None, UUID] | None:
    if not text:
        return None
    time, _, row_id = text.rpartition("_")
    try:
        return None if by_id else datetime.fromisoformat(time.replace(" ", "+")), UUID(row_id)
    except ValueError as error:
        raise IncorrectLookupParameters(error) from error


def _beyond(queryset: "QuerySet[Any]", field: str, cursor: tuple[datetime | None, UUID], way: str) -> "QuerySet[Any]":
    time, row_id = cursor
    if time is None:
        return queryset.filter(**{f"pk__{way}": row_id})
    # The first condition alone lets Postgres start in the index at the right place.
    same = Q(**{f"{field}": time, f"pk__{way}": row_id})
    return queryset.filter(**{f"{field}__{way}e": time}).filter(Q(**{f"{field}__{way}": time}) | same)
