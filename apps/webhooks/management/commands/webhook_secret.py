"""Makes, rotates or revokes a project's webhook secret; a new one is printed once, alone, as the last line."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.access.models import Project
from apps.webhooks import secrets
from apps.webhooks.errors import NoSecret, SecretExists

MOST_HOURS = 24 * 30


class Command(BaseCommand):
    help = (
        "Make, rotate or revoke the secret that a project's webhooks are signed with. The last line of standard "
        "output is the new secret, which is not shown again. Example: manage.py webhook_secret create "
        "--project invoices"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See --help."""
        parser.add_argument("action", choices=("create", "rotate", "revoke"), help="what to do with the secret")
        parser.add_argument("--project", default="default", help="the project whose webhooks it signs")
        parser.add_argument(
            "--overlap", type=int, default=24, help="rotate: hours for which the old secret signs too (24)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            raise CommandError(f"there is no project {options['project']}")
        if not 0 <= options["overlap"] <= MOST_HOURS:
            raise CommandError(f"--overlap: give 0 to {MOST_HOURS} hours")
        try:
            if options["action"] == "revoke":
                secrets.revoke(project=project)
                self.stderr.write(f"The webhook secret of {project.name} is revoked: no webhook of it goes out.")
                return
            if options["action"] == "create":
                _, secret = secrets.create(project=project)
            else:
                secret = secrets.rotate(project=project, overlap=timedelta(hours=options["overlap"]))
        except SecretExists:
            raise CommandError(f"{project.name} has a secret already: use rotate") from None
        except NoSecret:
            raise CommandError(f"{project.name} has no secret: use create") from None
        self.stderr.write(f"Webhook secret of project {project.name}; it is not shown again:")
        self.stdout.write(secret)
