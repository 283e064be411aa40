"""`manage.py tasks`: looks at tasks and queues from a terminal or a script, cancels, pauses and resumes."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.access.models import Project
from apps.core import terminal
from apps.core.errors import RedriveError
from apps.core.terminal import shown
from apps.tasks import kinds, operate, queries, queues, search, states
from apps.tasks.models import Task

MOST = 10_000
EXAMPLES = """
examples:
  manage.py tasks list --state dead --limit 50
  manage.py tasks list --queue low --json | jq -r .id
  manage.py tasks show task_0197f0... --reveal
  manage.py tasks cancel task_0197f0... --reason "sent twice"
  manage.py tasks queues
  manage.py tasks pause webhooks --reason "receiver is down" --minutes 30

exit codes: 0 done, 1 refused or not found (one line on stderr says why), 2 wrong usage.
With --json each row is one line of JSON on stdout; times are ISO 8601 in UTC.
"""
FACTS = ("id", "state", "kind", "queue", "project", "attempts", "created_at", "due_at", "finished_at")


class Command(BaseCommand):
    help = "Look at tasks and queues, cancel tasks, pause and resume queues. What it changes is in the audit."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With examples below the options."""
        return super().create_parser(prog_name, subcommand, epilog=EXAMPLES, **kwargs)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See --help."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        names = "list, show, cancel, queues, pause or resume; each has its own --help"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", help=names)
        found = verbs.add_parser("list", help="tasks of all projects, newest first")
        found.add_argument("--state", choices=states.ALL, metavar="STATE", help=f"one of {', '.join(states.ALL)}")
        found.add_argument("--kind", help=f"one of {', '.join(kinds.names())}")
        found.add_argument("--queue", choices=states.QUEUES, metavar="QUEUE", help=f"one of {', '.join(states.QUEUES)}")
        found.add_argument("--project", help="the project's name")
        found.add_argument("--limit", type=int, default=20, help=f"1 to {MOST:,} tasks (20)")
        show = verbs.add_parser("show", help="one task with its attempts")
        show.add_argument("task", help="task_...")
        show.add_argument("--reveal", action="store_true", help="its texts too; the audit keeps that you looked")
        cancel = verbs.add_parser("cancel", help="call tasks off: what waits ends at once, what runs within a second")
        cancel.add_argument("task", nargs="+", help="task_...")
        listed = verbs.add_parser("queues", help="what waits in each queue")
        pause = verbs.add_parser("pause", help="let no worker take from a queue; what runs goes on")
        pause.add_argument("--minutes", type=float, help="resume by itself after so many (never)")
        resume = verbs.add_parser("resume", help="let workers take from a paused queue again")
        for verb in (pause, resume):
            verb.add_argument("queue", choices=states.QUEUES, metavar="QUEUE", help=f"{', '.join(states.QUEUES)}")
        for verb in (show, cancel, resume):
            verb.add_argument("--reason", default="", help="kept in the audit")
        pause.add_argument("--reason", required=True, help="shown beside the queue and kept in the audit")
        for verb in (found, show, listed):
            verb.add_argument("--json", action="store_true", help="one line of JSON for each row")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do the verb; what it refuses is one line."""
        try:
            getattr(self, f"_{options['verb']}")(options)
        except RedriveError as error:
            raise CommandError(error.message) from None

    def _list(self, options: dict[str, Any]) -> None:
        if not 1 <= options["limit"] <= MOST:
            raise CommandError(f"--limit: from 1 to {MOST}")
        rows = Task.objects.order_by("-id").prefetch_related("project")
        for name in ("state", "queue"):
            if options[name]:
                rows = rows.filter(**{name: options[name]})
        if options["kind"]:
            if options["kind"] not in kinds.names():
                raise CommandError(f"--kind: there is none of that name. There are: {', '.join(kinds.names())}")
            rows = rows.filter(kind=options["kind"])
        if options["project"]:
            project = Project.objects.filter(name=options["project"]).first()
            if project is None:
                raise CommandError(f"--project: there is none of the name {options['project']}")
            rows = rows.filter(project=project)
        found = [search.facts(task) for task in rows[: options["limit"]]]
        if options["json"]:
            self._lines(found)
        elif found:
            self._table(FACTS, [[shown(row[name]) for name in FACTS] for row in found])
        else:
            self.stderr.write("no such task")

    def _show(self, options: dict[str, Any]) -> None:
        task = Task.objects.prefetch_related("project").filter(pk=queries.task_id(options["task"])).first()
        if task is None:
            raise CommandError("There is no such task.")
        attempts = [dataclasses.asdict(one) for one in search.timeline(task)]
        texts = operate.reveal(task.pk, reason=options["reason"]) if options["reveal"] else {}
        if options["json"]:
            self._lines([{**search.facts(task), "timeline": attempts, **({"texts": texts} if texts else {})}])
            return
        for name, value in search.facts(task).items():
            if value not in (None, "", False):
                self.stdout.write(f"{name:<17} {json.dumps(value) if isinstance(value, dict) else shown(value)}")
        if attempts:
            self.stdout.write("")
            names = ("number", "outcome", "started_at", "wait", "seconds", "upstream", "error_code", "error_message")
            self._table(names, [[shown(one[name])[:80] for name in names] for one in attempts])
        for name, text in texts.items():
            self.stdout.write(f"\n{name}:\n{text}")

    def _cancel(self, options: dict[str, Any]) -> None:
        refused = 0
        for text in options["task"]:
            try:
                cancelled = operate.cancel(queries.task_id(text), reason=options["reason"])
            except RedriveError as error:
                self.stderr.write(f"{text}: {error.message}")
                refused += 1
            else:
                ended = cancelled.state == states.CANCELLED
                self.stdout.write(f"{text}: {'cancelled' if ended else 'it runs, and is told to end'}")
        if refused:
            raise CommandError(f"{refused} of {len(options['task'])} could not be cancelled")

    def _queues(self, options: dict[str, Any]) -> None:
        found = queues.overview()
        if options["json"]:
            self._lines([dataclasses.asdict(one) for one in found])
            return
        names = ("queue", "state", "due", "oldest", "later", "retrying", "running", "per minute", "reason")
        rows = [
            [
                one.name, "paused" if one.is_paused else "open", one.shown_due,
                "" if one.oldest is None else f"{one.oldest:.0f} s", one.shown_later, one.shown_retrying,
                one.shown_running, f"{one.per_minute:.1f}", one.reason,
            ]
            for one in found
        ]  # fmt: skip
        self._table(names, rows)

    def _pause(self, options: dict[str, Any]) -> None:
        try:
            until = timezone.now() + timedelta(minutes=options["minutes"]) if options["minutes"] is not None else None
        except (OverflowError, ValueError):
            raise CommandError("--minutes: give a number of minutes, such as 30") from None
        queues.pause(options["queue"], reason=options["reason"], resume_at=until)
        self.stdout.write(f"{options['queue']}: paused{f' until {until:%Y-%m-%d %H:%M:%S} UTC' if until else ''}")

    def _resume(self, options: dict[str, Any]) -> None:
        queues.resume(options["queue"], reason=options["reason"])
        self.stdout.write(f"{options['queue']}: open")

    def _lines(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self.stdout.write(terminal.line(row))

    def _table(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        for line in terminal.table(names, rows):
            self.stdout.write(line)
