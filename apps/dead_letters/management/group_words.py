"""Says what is known of failure groups: as plain values, and as rows for a terminal."""

from collections.abc import Sequence
from typing import Any

from apps.core.terminal import printable, shown
from apps.dead_letters import group_states, queries, sparkline
from apps.dead_letters.management.naming import short
from apps.dead_letters.models import FailureGroup
from apps.tasks import holds

HEADS = ("group", "state", "open", "total", "redriven ok", "last seen", "last 24 h", "owner", "title")


def facts(groups: Sequence[FailureGroup]) -> list[dict[str, Any]]:
    """Plain values; `last_24_h`: letters of each hour, the oldest first. Owners must be at hand."""
    names = [group.pk for group in groups]
    lines, held = queries.sparklines(names), holds.held(names)
    return [
        {
            "fingerprint": group.pk,
            "state": group.state,
            "title": str(group),
            "message": group.message,
            "kind": group.kind,
            "queue": group.queue,
            "upstream": group.upstream,
            "code": group.code,
            "status": group.status,
            "open": group.open_count,
            "total": group.died_count,
            "redriven": group.redriven_count,
            "succeeded": group.succeeded_count,
            "failed_again": group.failed_count,
            "discarded": group.discarded_count,
            "keys": group.key_count,
            "first_seen": group.first_seen,
            "last_seen": group.last_seen,
            "snoozed_until": group.snoozed_until,
            "owner": group.owner.get_username() if group.owner else None,
            "note": group.note,
            "held": group.pk in held,
            "last_24_h": lines.get(group.pk, [0] * queries.DAY),
        }
        for group in groups
    ]


def row(fact: dict[str, Any]) -> list[str]:
    """The cells of a group's row, as HEADS."""
    state = group_states.WORDS[fact["state"]] + (", held" if fact["held"] else "")
    ok = f"{fact['succeeded']:,}/{fact['redriven']:,}" if fact["redriven"] else ""
    seen = shown(fact["last_seen"])
    return [
        short(fact["fingerprint"]), state, f"{fact['open']:,}", f"{fact['total']:,}", ok, seen,
        sparkline.bars(fact["last_24_h"]), printable(fact["owner"] or ""), printable(fact["title"]),
    ]  # fmt: skip
