"""Lists of long tables that stay fast with millions of rows: newest first, by (time, id) or by id, never counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst
from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter, RelatedDropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList

from apps.access.audited_admin import ReadOnlyModelAdmin
from apps.core import keyset
from apps.core.database import related

OLDER, NEWER = "older", "newer"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of rows, and the cursors of the pages beside it; empty where there is none."""

    rows: list[Any]
    older: str
    newer: str


def read_page(queryset: "QuerySet[Any]", *, field: str, size: int, asked: Mapping[str, str]) -> Page:
    """The page that `?older=` or `?newer=` asks for, newest first by (field, pk). One row more is read, to know whether
    there is another page. Raises IncorrectLookupParameters for a cursor that was never given."""
    parse = queryset.model._meta.pk.to_python
    older, newer = (_cursor(asked.get(way), parse, by_id=field == "pk") for way in (OLDER, NEWER))
    if newer:
        rows = list(_beyond(queryset.order_by(field, "pk"), field, newer, "gt")[: size + 1])
        has_newer, has_older = len(rows) > size, True
        rows = rows[:size][::-1]
    else:
        queryset = queryset.order_by(f"-{field}", "-pk") if field != "pk" else queryset.order_by("-pk")
        rows = list((_beyond(queryset, field, older, "lt") if older else queryset)[: size + 1])
        has_newer, has_older = older is not None, len(rows) > size
        rows = rows[:size]

    def cursor(row: Any) -> str:
        return str(row.pk) if field == "pk" else f"{getattr(row, field).isoformat()}_{row.pk}"

    return Page(rows, cursor(rows[-1]) if has_older and rows else "", cursor(rows[0]) if has_newer and rows else "")


class KeysetChangeList(ChangeList):
    """A page is found through the index on (time, id), whichever page it is: `?older=<time>_<id>`, or by `<id>`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = capfirst(self.opts.verbose_name_plural)  # Django's is an order to select one, to whoever may not

    def get_filters_params(self, params: Any = None) -> Any:
        """The filters without the page."""
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in {OLDER, NEWER}}

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str]:
        """Newest first, always: any other order would have to sort the table."""
        return list(dict.fromkeys([f"-{self.model_admin.keyset_field}", "-pk"]))

    def get_results(self, request: HttpRequest) -> None:
        """One row more than a page is read, to know whether there is a next page."""
        size = self.list_per_page
        page = read_page(self.queryset, field=self.model_admin.keyset_field, size=size, asked=request.GET)
        self.older, self.newer = page.older, page.newer
        self.result_list = rows = page.rows
        self.result_count = len(rows)
        self.full_result_count = len(rows)  # equal to the one above: unfold then shows no "(Show all)"
        self.show_full_result_count = self.show_admin_actions = self.can_show_all = self.multi_page = False
        self.paginator = self.model_admin.get_paginator(request, rows, size)

    @property
    def older_url(self) -> str:
        """The next page's query string."""
        return str(self.get_query_string({OLDER: self.older}, remove=[OLDER, NEWER])) if self.older else ""

    @property
    def newer_url(self) -> str:
        """The previous page's query string."""
        return str(self.get_query_string({NEWER: self.newer}, remove=[OLDER, NEWER])) if self.newer else ""

    @property
    def newest_url(self) -> str:
        """The first page's query string."""
        return str(self.get_query_string(remove=[OLDER, NEWER]))


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


def _cursor(text: str | None, parse: Callable[[str], Any], *, by_id: bool) -> tuple[datetime | None, Any] | None:
    if not text:
        return None
    time, _, row_id = text.rpartition("_")
    try:
        if "\0" in text:
            raise ValueError("NUL")
        moment = None if by_id else datetime.fromisoformat(time.replace(" ", "+"))
        if moment is not None and moment.tzinfo is None:
            raise ValueError("a moment without its zone is none")
        return moment, parse(row_id)
    except (ValueError, ValidationError) as error:
        raise IncorrectLookupParameters(error) from error


def _beyond(queryset: "QuerySet[Any]", field: str, cursor: tuple[datetime | None, Any], way: str) -> "QuerySet[Any]":
    time, row_id = cursor
    if time is None:
        return keyset.beyond(queryset, ("pk",), (row_id,), way)
    return keyset.beyond(queryset, (field, "pk"), (time, row_id), way)
