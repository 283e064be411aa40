"""Finds where a page of rows begins: beyond a row, by the fields that an index has in this order."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Q, QuerySet


def beyond(rows: "QuerySet[Any]", names: Sequence[str], values: Sequence[Any], way: str) -> "QuerySet[Any]":
    """The rows after a place. names: one or two fields, the last of them unique; way: `lt` or `gt`."""
    last = {f"{names[-1]}__{way}": values[-1]}
    if len(names) == 1:
        return rows.filter(**last)
    # The first condition alone lets Postgres start in the index at the right place.
    same = Q(**{names[0]: values[0], **last})
    return rows.filter(**{f"{names[0]}__{way}e": values[0]}).filter(Q(**{f"{names[0]}__{way}": values[0]}) | same)
