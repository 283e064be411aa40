"""The verbs of `manage.py dead_letters` that change groups: their options, and what they do."""

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from apps.dead_letters import group_states, grouping
from apps.dead_letters.models import FailureGroup

Options = dict[str, Any]


def add_to(verbs: Any) -> None:
    """Add a parser for each."""
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, (_, words) in VERBS.items():
        parsers[name] = verbs.add_parser(name, help=words)
        parsers[name].add_argument("group", nargs="+", help="first characters of a fingerprint, at least 6")
        if name != "note":
            parsers[name].add_argument("--reason", default="", help="kept in the audit")
    parsers["assign"].add_argument("--owner", required=True, help='a login name of the staff; "" for nobody')
    parsers["note"].add_argument("--text", required=True, help='the note, which replaces the one before; "" for none')
    snooze = parsers["snooze"]
    snooze.add_argument("--hours", type=float, help="hide it for so many hours")
    snooze.add_argument("--more", type=int, help="hide it until it has failed so many times more")


def do(verb: str, fingerprint: str, options: Options) -> str:
    """Do it to a group; what is so now. Raises the verb's errors."""
    return VERBS[verb][0](fingerprint, options)


def _assign(fingerprint: str, options: Options) -> str:
    group = grouping.assign(fingerprint, owner=options["owner"], reason=options["reason"])
    return f"{_state(group)}, {f'assigned to {group.owner}' if group.owner else 'assigned to nobody'}"


def _snooze(fingerprint: str, options: Options) -> str:
    try:
        until = timezone.now() + timedelta(hours=options["hours"]) if options["hours"] is not None else None
    except (OverflowError, ValueError):
        raise CommandError("--hours: give a number of hours, such as 4") from None
    group = grouping.snooze(fingerprint, until=until, more=options["more"], reason=options["reason"])
    ends = [f"until {group.snoozed_until:%Y-%m-%d %H:%M:%S} UTC"] if group.snoozed_until else []
    ends += [f"until it has failed {options['more']:,} times more"] if options["more"] else []
    return f"snoozed {' or '.join(ends)}"


def _resolve(fingerprint: str, options: Options) -> str:
    return _state(grouping.resolve(fingerprint, reason=options["reason"]))


def _reopen(fingerprint: str, options: Options) -> str:
    return _state(grouping.reopen(fingerprint, reason=options["reason"]))


def _note(fingerprint: str, options: Options) -> str:
    return "noted" if grouping.note(fingerprint, text=options["text"]).note else "without a note"


def _hold(fingerprint: str, options: Options) -> str:
    grouping.hold(fingerprint, reason=options["reason"])
    return "held: its failures are not retried"


def _release(fingerprint: str, options: Options) -> str:
    grouping.release(fingerprint, reason=options["reason"])
    return "released: its failures are retried"


def _state(group: FailureGroup) -> str:
    return group_states.WORDS[group.state]


VERBS: dict[str, tuple[Callable[[str, Options], str], str]] = {
    "assign": (_assign, "give groups to a person, or to nobody; those for review are then open"),
    "snooze": (_snooze, "hide groups for a time, or until they have failed so many times more"),
    "resolve": (_resolve, "be done with groups; their letters stay, and if they fail again they are regressed"),
    "reopen": (_reopen, "work on groups: they were looked at, or are taken up again"),
    "note": (_note, "replace the note of groups"),
    "hold": (_hold, "no automatic retries of such failures any more: tasks die at once, with a letter"),
    "release": (_release, "end a hold"),
}
