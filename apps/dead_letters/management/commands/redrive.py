"""`manage.py redrive`: puts dead tasks back to work, one by one or many at a pace, and looks after that."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core import terminal
from apps.core.errors import RedriveError
from apps.core.terminal import shown
from apps.dead_letters import bulk_states, queries, search, triage
from apps.dead_letters.bulk import control, plan
from apps.dead_letters.bulk.plan import Action
from apps.dead_letters.management import bulk_words, group_words, naming
from apps.dead_letters.management.bulk_session import DONE, USAGE, Session
from apps.dead_letters.models import BulkOperation, DeadLetter

MOST = 10_000
Act = Callable[[dict[str, Any]], int | None]
EXAMPLES = """
examples:
  manage.py redrive groups                            what fails, and how much of it is open
  manage.py redrive groups -q 'state:regressed kind:chat_completion' --json | jq -r .fingerprint
  manage.py redrive letter letter_0197f0... --reason "quota was raised"
  manage.py redrive bulk --group 3fa94c --reason "provider is back" --follow
  manage.py redrive bulk -q 'code:timeout age:<2h' --rate 5 --canary 10 --stop-percent 10
  manage.py redrive bulk -q 'project:billing' --dry-run
  manage.py redrive bulk -q 'age:>30d' --discard --code too_late --reason "nobody waits any more" --yes 4711
  manage.py redrive bulk --restore-from 0197f0...     take a bulk discard back
  manage.py redrive list --active
  manage.py redrive pace 0197f0... --rate 50

A group is named by at least 6 first characters of its fingerprint. The clock (manage.py clock) counts and releases;
the command looks on. Ctrl-C within the 10 seconds of the hold takes the start back; afterwards it only stops looking.

exit codes: 0 done (or nothing to do), 1 refused, taken back, stopped, cancelled or some failed again, 2 wrong usage,
3 it goes on without this command. With --json each row is one line of JSON on stdout; times are ISO 8601 in UTC.
"""
OF_OPERATIONS = {
    "pause": (control.pause, "release nothing more for now; what was released goes on"),
    "resume": (control.resume, "go on after a pause; or after it stopped, with what has failed so far let pass"),
    "cancel": (control.cancel, "end it: what was not released stays as it was"),
    "undo": (control.undo, "take the start back within the hold; it can be started again from the admin"),
}
PACE = ("rate", "max_in_flight", "canary", "stop_percent")
LISTED = ("id", "action", "state", "total", "released", "succeeded", "failed", "skipped", "created_at", "title")


class Command(BaseCommand):
    help = "Put dead tasks back to work: single letters, or groups and searches at a controlled pace with a canary."
    stealth_options = ("stdin",)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With examples below the options."""
        return super().create_parser(prog_name, subcommand, epilog=EXAMPLES, **kwargs)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See --help."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        names = "letter, groups, bulk, list, show, pause, resume, cancel, undo or pace; each has its own --help"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", help=names)
        letter = verbs.add_parser("letter", help="redrive single letters now")
        letter.add_argument("letter", nargs="+", help="letter_...")
        letter.add_argument("--reason", default="", help="kept with the letter and in the audit")
        groups = verbs.add_parser("groups", help="failure groups, what failed last first")
        groups.add_argument("-q", "--query", default="", help=search.HELP)
        groups.add_argument("--limit", type=int, default=20, help=f"1 to {MOST:,} groups (20)")
        _add_bulk(verbs.add_parser("bulk", help="redrive, discard or restore many letters as one operation"))
        listed = verbs.add_parser("list", help="bulk operations, newest first")
        listed.add_argument("--active", action="store_true", help="only those that have not ended")
        listed.add_argument("--limit", type=int, default=20, help=f"1 to {MOST:,} operations (20)")
        show = verbs.add_parser("show", help="one bulk operation with its report")
        show.add_argument("--follow", action="store_true", help="tell how far it is until it has ended or stopped")
        pace = verbs.add_parser("pace", help="go faster or slower")
        pace.add_argument("--rate", type=float, help="letters a second")
        pace.add_argument("--max-in-flight", type=int, help="redriven tasks that may be unfinished at once")
        for name, (_, words) in OF_OPERATIONS.items():
            verb = verbs.add_parser(name, help=words)
            verb.add_argument("operation", help="the operation's id")
            if name != "undo":
                verb.add_argument("--reason", default="", help="kept in the audit")
        for verb in (show, pace):
            verb.add_argument("operation", help="the operation's id")
        for verb in (groups, listed, show):
            verb.add_argument("--json", action="store_true", help="one line of JSON for each row")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do the verb; what it refuses is one line."""
        verb = options["verb"]
        act: Act = self._move if verb in OF_OPERATIONS else getattr(self, f"_{verb}")
        try:
            code = act(options)
        except RedriveError as error:
            option = f"--{error.param.replace('_', '-')}: " if error.param in PACE else ""
            raise CommandError(terminal.printable(f"{option}{error.message}")) from None
        if code:
            self.stdout.flush()
            sys.exit(code)

    def _letter(self, options: dict[str, Any]) -> None:
        refused = 0
        for text in options["letter"]:
            try:
                triage.redrive(queries.letter_id(text), reason=options["reason"])
            except RedriveError as error:
                self.stderr.write(f"{terminal.printable(text)}: {error.message}")
                refused += 1
            else:
                self.stdout.write(f"{text}: redriven")
        if refused:
            raise CommandError(f"{refused} of {len(options['letter'])} could not be redriven")

    def _groups(self, options: dict[str, Any]) -> None:
        rows = search.groups(search.parse(options["query"])).prefetch_related("owner")
        found = group_words.facts(list(rows.order_by("-last_seen", "-pk")[: _limit(options)]))
        self._show_rows(options, found, group_words.HEADS, [group_words.row(one) for one in found], "failure group")

    def _bulk(self, options: dict[str, Any]) -> int:
        action = Action.RESTORE if options["restore_from"] else Action.DISCARD if options["discard"] else Action.REDRIVE
        stdin = options.get("stdin") or sys.stdin
        self._refuse_misuse(action, options, asks=stdin.isatty())
        operation = plan.create(
            action,
            groups=[naming.group(text).pk for text in options["group"]],
            query=options["query"],
            source=naming.operation(options["restore_from"]).pk if options["restore_from"] else None,
        )
        terms = {**{name: options[name] for name in ("reason", *PACE)}, "code": options["code"] or ""}
        session = Session(stdin, self.stdout, self.stderr, patience=options["wait"])
        flags = {name: options[name] for name in ("yes", "dry_run", "follow")}
        return session.run(operation, terms=terms, **flags)

    def _refuse_misuse(self, action: str, options: dict[str, Any], *, asks: bool) -> None:
        """Before anything is made: what would be refused only after the count, or would wait for an answer."""
        if options["discard"] and options["restore_from"]:
            raise CommandError("--discard or --restore-from, not both", returncode=USAGE)
        if action == Action.DISCARD and not (options["dry_run"] or (options["reason"].strip() and options["code"])):
            raise CommandError("--discard needs --reason and --code", returncode=USAGE)
        if action != Action.REDRIVE and (options["canary"] is not None or options["stop_percent"] is not None):
            raise CommandError("--canary and --stop-percent are of a redrive", returncode=USAGE)
        least, most = control.RATES
        if options["rate"] is not None and not least <= options["rate"] <= most:
            raise CommandError(f"--rate: from {least:g} to {most:,.0f} letters a second", returncode=USAGE)
        if not (asks or options["dry_run"] or options["yes"] is not None):
            raise CommandError("nobody can be asked here: add --yes, or --yes N with the number", returncode=USAGE)

    def _list(self, options: dict[str, Any]) -> None:
        rows = BulkOperation.objects.order_by("-created_at", "-pk")
        if options["active"]:
            rows = rows.filter(state__in=bulk_states.ACTIVE)
        operations = list(rows[: _limit(options)])
        found = [bulk_words.facts(one) for one in operations] if options["json"] else []
        cells = [[one.pk.hex, *(shown(getattr(one, name)) for name in LISTED[1:])] for one in operations]
        self._show_rows(options, found, LISTED, cells, "bulk operation")

    def _show(self, options: dict[str, Any]) -> int:
        operation = naming.operation(options["operation"])
        if options["follow"]:
            session = Session(sys.stdin, self.stdout, self.stderr)
            code = session.follow(operation.pk)
            if options["json"]:
                self.stdout.write(terminal.line(bulk_words.facts(control.find(operation.pk))))
            return code
        found = bulk_words.facts(operation)
        if options["json"]:
            self.stdout.write(terminal.line(found))
            return DONE
        for line in (*bulk_words.about(operation), bulk_words.progress(operation), *bulk_words.outcome(operation)):
            self.stdout.write(line)
        for name in ("reason", "code", "created_by", "created_at", "started_by", "started_at", "finished_at", "rate"):
            if found[name]:
                value = f"{found[name]:g} a second" if name == "rate" else shown(found[name])
                self.stdout.write(f"{name:<12} {value}")
        return DONE

    def _move(self, options: dict[str, Any]) -> None:
        operation = naming.operation(options["operation"])
        reason = {"reason": options["reason"]} if "reason" in options else {}
        moved = OF_OPERATIONS[options["verb"]][0](operation.pk, **reason)
        self.stdout.write(bulk_words.progress(moved))

    def _pace(self, options: dict[str, Any]) -> None:
        pace = {"rate": options["rate"], "max_in_flight": options["max_in_flight"]}
        if all(value is None for value in pace.values()):
            raise CommandError("give --rate, --max-in-flight or both", returncode=USAGE)
        moved = control.change_pace(naming.operation(options["operation"]).pk, **pace)
        self.stdout.write(f"{moved.rate:g} a second, at most {moved.max_in_flight:,} in flight")

    def _show_rows(
        self,
        options: dict[str, Any],
        found: Sequence[dict[str, Any]],
        heads: Sequence[str],
        cells: Sequence[Sequence[str]],
        what: str,
    ) -> None:
        if options["json"]:
            for one in found:
                self.stdout.write(terminal.line(one))
        elif cells:
            for line in terminal.table(heads, cells):
                self.stdout.write(line)
        else:
            self.stderr.write(f"no such {what}")


def _add_bulk(bulk: argparse.ArgumentParser) -> None:
    bulk.add_argument("--group", nargs="+", action="extend", default=[], help="groups by the first characters")
    bulk.add_argument("-q", "--query", default="", help=f"{search.HELP}. With --group: what matches both")
    bulk.add_argument("--discard", action="store_true", help="discard them instead; they can be restored")
    codes = ", ".join(DeadLetter.DiscardCode.values)
    bulk.add_argument("--code", choices=DeadLetter.DiscardCode.values, metavar="CODE", help=f"of a discard: {codes}")
    bulk.add_argument("--restore-from", metavar="OPERATION", help="open again what that operation has discarded")
    bulk.add_argument("--reason", default="", help="kept with each letter and in the audit; needed to discard")
    bulk.add_argument("--rate", type=float, help="letters a second (20; of a discard 1000)")
    bulk.add_argument("--max-in-flight", type=int, help="redriven tasks that may be unfinished at once (100)")
    bulk.add_argument("--canary", type=int, help="so many first; go on if all succeed (3 of more than 20, else none)")
    bulk.add_argument("--stop-percent", type=int, help="stop if more of those that ended have failed again (20)")
    asked = "start without a question; with a number only if it is that of the letters, which a large one needs"
    bulk.add_argument("--yes", "--confirm", nargs="?", type=int, const=True, metavar="N", help=asked)
    bulk.add_argument("--dry-run", action="store_true", help="count, tell what would be done, and do nothing")
    bulk.add_argument("--follow", action="store_true", help="tell how far it is until it has ended or stopped")
    bulk.add_argument("--wait", type=float, default=60.0, help="seconds to wait until it is counted (60)")


def _limit(options: dict[str, Any]) -> int:
    limit: int = options["limit"]
    if not 1 <= limit <= MOST:
        raise CommandError(f"--limit: from 1 to {MOST:,}", returncode=USAGE)
    return limit
