"""`manage.py demo`: believable work and failures to look at and to decide on, and their removal."""

import argparse
import time
from random import Random
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.core.errors import RedriveError
from apps.dead_letters.demo import project, removal, triaging, works
from apps.dead_letters.demo.making import Maker
from apps.dead_letters.models import DeadLetter
from apps.tasks import liveness
from apps.tasks.models import Task

MOST = 200_000
USAGE = 2  # exit code
EXAMPLES = """
examples:
  manage.py demo
  manage.py demo --tasks 500 --failing 0.5 --seed 7
  manage.py demo --more --tasks 200
  manage.py demo --remove

All of it belongs to the project `demo` and its keys, whose secrets nobody knows. What is due, and what you redrive,
is really done with the routes that you have, by the names that scripts/up gives to the local model (gpt-4o-mini,
text-embedding-3-small): with routes to a paid provider it costs a little. New failures raise alerts as real ones do.
--remove deletes all that belongs to the project, whoever made it; the audit keeps its entries.

exit codes: 0 done, 1 refused (stderr says why), 2 wrong usage.
"""


class Command(BaseCommand):
    help = "Make tasks of the last 24 hours with an outage and other failures, to look at and to try triage on."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With examples below the options."""
        return super().create_parser(prog_name, subcommand, epilog=EXAMPLES, **kwargs)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See --help."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--tasks", type=int, default=2000, help=f"1 to {MOST:,} tasks (2000)")
        parser.add_argument("--failing", type=float, default=0.3, help="the share of them that is dead, 0 to 1 (0.3)")
        parser.add_argument("--seed", type=int, help="the same number makes the same work, as of now")
        parser.add_argument("--more", action="store_true", help="add to a demo that is there already")
        parser.add_argument("--remove", action="store_true", help="delete the demo, with all that was done to it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it, or remove it."""
        if not 1 <= options["tasks"] <= MOST:
            raise CommandError(f"--tasks: from 1 to {MOST:,}", returncode=USAGE)
        if not 0 <= options["failing"] <= 1:
            raise CommandError("--failing: from 0 to 1", returncode=USAGE)
        try:
            if options["remove"]:
                self._remove()
            else:
                self._make(options)
        except RedriveError as error:
            raise CommandError(error.message) from None

    def _make(self, options: dict[str, Any]) -> None:
        there = project.find()
        if there is not None and not options["more"] and Task.objects.filter(project=there).exists():
            raise CommandError("There is a demo already. Remove it (--remove), or add to it (--more).")
        began = time.monotonic()
        seed = options["seed"] if options["seed"] is not None else Random().randrange(10**6)
        rng = Random(seed)
        owner, keys = project.make()
        now = timezone.now()
        made = list(works.think(options["tasks"], options["failing"], keys=len(keys), now=now, rng=rng))
        maker = Maker(owner, keys, rng)
        maker.make(made)
        triaging.decide(maker, made, rng)
        letters = DeadLetter.objects.filter(project=owner)
        open_letters, groups = letters.filter(state="open").count(), letters.values("group_id").distinct().count()
        seconds = time.monotonic() - began
        self.stdout.write(f"{len(made):,} tasks in {seconds:.1f} s, seed {seed}. In the project `{project.NAME}` now:")
        self.stdout.write(f"{open_letters:,} open dead letters in {groups} failure groups.")
        self.stdout.write("To look: manage.py redrive groups, or the admin. To remove: manage.py demo --remove")
        if liveness.is_silent(liveness.chores()):
            self.stderr.write("No clock ticks: what you decide is neither counted nor paced until one does.")

    def _remove(self) -> None:
        there = project.find()
        if there is None:
            self.stdout.write("There is no demo.")
            return
        removed = removal.remove(there)
        self.stdout.write(f"Removed: {removed.tasks:,} tasks, {removed.letters:,} letters, {removed.groups:,} groups.")
