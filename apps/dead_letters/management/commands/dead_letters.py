"""`manage.py dead_letters`: looks at dead letters and decides on them and their groups, from a terminal or a script."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from apps.core import terminal
from apps.core.database import related
from apps.core.errors import InvalidRequest, RedriveError
from apps.core.terminal import shown
from apps.dead_letters import queries, search, triage
from apps.dead_letters.management import group_verbs, group_words, letter_words, naming
from apps.dead_letters.models import DeadLetter
from apps.tasks import operate, payloads
from apps.tasks import search as task_search
from apps.tasks.models import Task

MOST = 10_000
USAGE, MORE = 2, 3  # exit codes
Act = Callable[[dict[str, Any]], int | None]
EXAMPLES = """
examples:
  manage.py dead_letters list -q 'state:open code:timeout age:<2h "connection refused"'
  manage.py dead_letters show letter_0197f0... --reveal --reason "ticket 7"
  manage.py dead_letters review --batch 10
  manage.py dead_letters discard letter_0197f0... --code bad_input --reason "the prompt is empty"
  manage.py dead_letters edit letter_0197f0... --print > draft.json
  manage.py dead_letters edit letter_0197f0... --file draft.json --reason "a shorter prompt"
  manage.py dead_letters assign 3fa94c --owner anna
  manage.py dead_letters snooze 3fa94c --hours 4
  manage.py dead_letters hold 3fa94c --reason "each retry costs"

A group is named by at least 6 first characters of its fingerprint; `manage.py redrive` lists groups and redrives.

review prints a batch of open letters that nobody has reviewed, oldest first, one line of JSON each, and marks them
reviewed when they are written out. Reviewers at the same time get different ones. For a script, until none is left:
  while true; do manage.py dead_letters review --batch 10 > batch; code=$?; look-at batch; [ $code = 3 ] || break; done

exit codes: 0 done; of review: none is left after this batch, or there was none. 1 refused or not found (stderr says
why). 2 wrong usage. 3 only of review: more are left. With --json each row is one line of JSON; times are ISO 8601.
"""
ATTEMPT = ("number", "cycle", "outcome", "started_at", "wait", "seconds", "upstream", "error_code", "error_message")


class Command(BaseCommand):
    help = "Look at dead letters and decide: review, discard, restore, edit; assign, snooze, resolve or hold groups."
    stealth_options = ("stdin",)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With examples below the options."""
        return super().create_parser(prog_name, subcommand, epilog=EXAMPLES, **kwargs)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See --help."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        names = f"list, show, review, discard, restore, edit; {', '.join(group_verbs.VERBS)}; each has its own --help"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", help=names)
        found = verbs.add_parser("list", help="letters of all projects, newest first")
        found.add_argument("-q", "--query", default="", help=search.HELP)
        found.add_argument("--limit", type=int, default=20, help=f"1 to {MOST:,} letters (20)")
        show = verbs.add_parser("show", help="one letter with its error, its attempts and its group")
        show.add_argument("--reveal", action="store_true", help="its task's texts too; the audit keeps that you looked")
        review = verbs.add_parser("review", help="the next open letters that nobody has reviewed, as lines of JSON")
        review.add_argument("--batch", type=int, default=10, help="letters at most (10)")
        discard = verbs.add_parser("discard", help="decide that tasks will not run again; it can be taken back")
        codes = DeadLetter.DiscardCode.values
        discard.add_argument("--code", required=True, choices=codes, metavar="CODE", help=f"one of {', '.join(codes)}")
        restore = verbs.add_parser("restore", help="open discarded letters again")
        for verb in (discard, restore):
            verb.add_argument("letter", nargs="+", help="letter_...")
        edit = verbs.add_parser("edit", help="redrive with another payload; the original is kept as a revision")
        edit.add_argument("--print", action="store_true", dest="draft", help="write the payload out, to edit it")
        edit.add_argument("--file", help="JSON of the new payload; - reads standard input")
        edit.add_argument("--revision", type=int, help="the revision that was edited, as --print told it (the last)")
        for verb in (show, edit):
            verb.add_argument("letter", help="letter_...")
        for verb in (show, restore, edit):
            verb.add_argument("--reason", default="", help="kept in the audit")
        discard.add_argument("--reason", required=True, help="kept with the letter and in the audit")
        for verb in (found, show):
            verb.add_argument("--json", action="store_true", help="one line of JSON for each row")
        group_verbs.add_to(verbs)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do the verb; what it refuses is one line."""
        verb = options["verb"]
        act: Act = self._of_groups if verb in group_verbs.VERBS else getattr(self, f"_{verb}")
        try:
            code = act(options)
        except RedriveError as error:
            where = f"{error.param}: " if error.param not in (None, "q", "reason") else ""
            raise CommandError(terminal.printable(f"{where}{error.message}")) from None
        if code:
            sys.exit(code)

    def _list(self, options: dict[str, Any]) -> None:
        if not 1 <= options["limit"] <= MOST:
            raise CommandError(f"--limit: from 1 to {MOST:,}", returncode=USAGE)
        rows = search.letters(search.parse(options["query"])).order_by("-created_at", "-pk")
        found = letter_words.facts(list(rows.prefetch_related("group")[: options["limit"]]))
        if options["json"]:
            for one in found:
                self.stdout.write(terminal.line(one))
        elif found:
            rows_ = [[shown(one[name])[:60] for name in letter_words.LISTED] for one in found]
            place = letter_words.LISTED.index("group")
            for row in rows_:
                row[place] = naming.short(row[place])
            self._table(letter_words.LISTED, rows_)
        else:
            self.stderr.write("no such dead letter")

    def _show(self, options: dict[str, Any]) -> None:
        letter = naming.letter(options["letter"])
        task = Task.objects.filter(pk=letter.task_id).first()
        attempts = [dataclasses.asdict(one) for one in task_search.timeline(task)] if task else []
        [found] = letter_words.facts([letter])
        found |= letter_words.decision(letter)
        texts = operate.reveal(letter.task_id, reason=options["reason"]) if options["reveal"] else {}
        group = related(letter, "group")
        about = group_words.facts([group])[0] if group else None
        if options["json"]:
            added = {"timeline": attempts, "failure_group": about, **({"texts": texts} if texts else {})}
            self.stdout.write(terminal.line({**found, **added}))
            return
        for name, value in found.items():
            if value not in (None, ""):
                self.stdout.write(f"{name:<12} {shown(value)}")
        if about:
            others = f"{about['open']:,} open of {about['total']:,}, {about['succeeded']:,} redriven and succeeded"
            self.stdout.write(f"{'of its group':<12} {shown(about['title'])}: {others}")
        if attempts:
            self.stdout.write("")
            self._table(ATTEMPT, [[shown(one[name])[:80] for name in ATTEMPT] for one in attempts])
        if attempts and attempts[-1]["traceback"]:
            self.stdout.write("")
            for line in attempts[-1]["traceback"].splitlines():
                self.stdout.write(shown(line))
        for name, text in texts.items():
            self.stdout.write(f"\n{name}:\n{text}")

    def _review(self, options: dict[str, Any]) -> int:
        if not 1 <= options["batch"] <= MOST:
            raise CommandError(f"--batch: from 1 to {MOST:,}", returncode=USAGE)
        # Written out before the commit: whoever is cut off sees them again rather than never.
        with transaction.atomic():
            letters = triage.take_for_review(options["batch"])
            for one in letter_words.facts(letters):
                self.stdout.write(terminal.line(one))
            self.stdout.flush()
        return MORE if triage.waits_for_review() else 0

    def _discard(self, options: dict[str, Any]) -> None:
        terms = {"reason": options["reason"], "code": options["code"]}
        self._each(options["letter"], "discarded", lambda text: triage.discard(queries.letter_id(text), **terms))

    def _restore(self, options: dict[str, Any]) -> None:
        reason = options["reason"]
        self._each(options["letter"], "open", lambda text: triage.restore(queries.letter_id(text), reason=reason))

    def _edit(self, options: dict[str, Any]) -> None:
        letter = naming.letter(options["letter"])
        if options["draft"] == bool(options["file"]):
            raise CommandError("--print or --file, one of them", returncode=USAGE)
        if options["draft"]:
            draft = triage.draft(letter.pk, reason=options["reason"])
            self.stdout.write(draft.text)
            self.stderr.write(f"Edit it, then: --file FILE --revision {draft.revision} --reason ...")
            return
        text = _text(options["file"], options.get("stdin") or sys.stdin)
        revision = options["revision"]
        if revision is None:
            revision = max((one.number for one in payloads.latest(letter.task_id)[1]), default=0)
        triage.edit_and_redrive(letter.pk, text=text, revision=revision, reason=options["reason"])
        self.stdout.write(f"{options['letter']}: edited and redriven")

    def _of_groups(self, options: dict[str, Any]) -> None:
        def change(text: str) -> str:
            return group_verbs.do(options["verb"], naming.group(text).pk, options)

        self._each(options["group"], None, change)

    def _each(self, texts: list[str], said: str | None, verb: Callable[[str], Any]) -> None:
        refused = 0
        for text in texts:
            try:
                done = verb(text)
            except RedriveError as error:
                if len(texts) == 1:
                    raise
                self.stderr.write(terminal.printable(f"{text}: {error.message}"))
                refused += 1
            else:
                self.stdout.write(f"{text}: {said or done}")
        if refused:
            raise CommandError(f"{refused} of {len(texts)} could not be changed")

    def _table(self, names: Any, rows: Any) -> None:
        for line in terminal.table(names, rows):
            self.stdout.write(line)


def _text(name: str, stdin: Any) -> str:
    try:
        return str(stdin.read()) if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"It cannot be read: {error}", param="--file") from None
