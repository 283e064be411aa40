"""Failure groups as lists show them: a page of rows with sparklines and holds, by as many queries as for one row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Count, QuerySet, Window
from django.http import HttpRequest
from django.utils.safestring import SafeString

from apps.access.keyset_admin import Page, read_page
from apps.dead_letters import group_states, grouping, queries, search, sparkline
from apps.dead_letters.bulk import plan
from apps.dead_letters.models import FailureGroup
from apps.dead_letters.spans import ago
from apps.tasks import holds

SIZE = 50  # rows of a page
TABS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "review": ("For review", group_states.TO_REVIEW),
    "open": ("Open", (group_states.OPEN,)),
    "snoozed": ("Snoozed", (group_states.SNOOZED,)),
    "resolved": ("Resolved", (group_states.RESOLVED,)),
    "all": ("All", group_states.ALL),
}
URGENT: Final = "urgent"
"""What the home shows, in place of a tab: groups with open letters that nobody has put off or is done with."""

DOTS: Final = {
    group_states.FOR_REVIEW: "rd-dot-bad",
    group_states.REGRESSED: "rd-dot-bad",
    group_states.OPEN: "rd-dot-warn",
    group_states.SNOOZED: "rd-dot-quiet",
    group_states.RESOLVED: "rd-dot-good",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A group with what its own row does not hold."""

    group: FailureGroup
    spark: SafeString
    held: bool

    @property
    def dot(self) -> str:
        """The CSS class of its status dot."""
        return DOTS[self.group.state]

    @property
    def first_seen(self) -> str:
        """How long ago."""
        return ago(self.group.first_seen)

    @property
    def last_seen(self) -> str:
        """How long ago."""
        return ago(self.group.last_seen)

    @property
    def words(self) -> str:
        """Its state in words."""
        return group_states.WORDS[self.group.state]


def shown(groups: "QuerySet[FailureGroup]") -> "QuerySet[FailureGroup]":
    """The groups with what `rows_of` needs of each: its owner, whether it is held, and its last hours."""
    return groups.select_related("owner").annotate(is_held=holds.is_held(), hours=queries.hours())


def rows_of(groups: Sequence[FailureGroup]) -> list[Row]:
    """Rows for groups that were read by way of `shown`."""
    return [
        Row(group, sparkline.draw(queries.line(group.hours)), group.is_held)  # type: ignore[attr-defined]
        for group in groups
    ]


def matching(tab: str, query: str) -> "QuerySet[FailureGroup]":
    """The groups of a tab that a search finds. Raises InvalidRequest."""
    found = search.groups(search.parse(query))
    if tab == URGENT:
        return found.filter(open_count__gt=0, state__in=(*group_states.TO_REVIEW, group_states.OPEN))
    return found if tab == "all" else found.filter(state__in=TABS[tab][1])


def page(tab: str, query: str, asked: Mapping[str, str]) -> Page:
    """A page of them, last seen first. Raises InvalidRequest, IncorrectLookupParameters."""
    return read_page(shown(matching(tab, query)), field="last_seen", size=SIZE, asked=asked)


def tabs(chosen: str, query: str) -> list[dict[str, Any]]:
    """The tabs with the number of their groups: these are few, so they are counted."""
    found = search.groups(search.parse(query)).values_list("state").annotate(n=Count("pk")).order_by()
    counts: dict[str, int] = dict(found)
    return [
        {
            "name": name,
            "title": title,
            "count": sum(counts.get(state, 0) for state in states),
            "is_chosen": name == chosen,
        }
        for name, (title, states) in TABS.items()
    ]


def urgent(most: int) -> tuple[list[Row], int]:
    """The groups that an operator looks at first, those with most open letters first; and how many there are in all."""
    found = matching(URGENT, "")
    found = shown(found).annotate(in_all=Window(Count("pk")))
    rows = list(found.order_by("-open_count", "fingerprint")[:most])
    return rows_of(rows), rows[0].in_all if rows else 0


def may(request: HttpRequest) -> dict[str, bool]:
    """What the person may do with groups, as the templates ask."""
    return {
        "may_change": request.user.has_perm(grouping.MAY_CHANGE),
        "may_hold": request.user.has_perm(grouping.MAY_HOLD),
        "may_redrive_many": request.user.has_perm(plan.PERMISSIONS[plan.Action.REDRIVE]),
        "may_discard_many": request.user.has_perm(plan.PERMISSIONS[plan.Action.DISCARD]),
    }
