"""Makes an API key and prints it once, alone, as the last line of standard output."""

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from apps.access import audit, keys
from apps.access.models import Project


class Command(BaseCommand):
    help = (
        "Make an API key and print it: the last line of standard output is the key, which is not shown again. "
        "Limits not given here: 100 requests a minute, no other. Example: manage.py create_api_key billing "
        "--project invoices --rpm 600 --budget 50"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="who or what will use the key")
        parser.add_argument("--project", default="default", help="the project that owns its work (made if absent)")
        parser.add_argument("--rpm", type=int, help=f"requests a minute (default {keys.DEFAULT_REQUESTS_PER_MINUTE})")
        parser.add_argument(
            "--strict", action="store_true", help=f"{keys.STRICT_REQUESTS_PER_MINUTE} requests a minute"
        )
        parser.add_argument("--tpm", type=int, help="tokens a minute")
        parser.add_argument("--concurrency", type=int, help="requests at the same time")
        parser.add_argument("--budget", help="US dollars a calendar month (UTC)")
        parser.add_argument("--models", default="", help="model names it may use, comma separated, * as a wildcard")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        limits = {
            "requests_per_minute": keys.STRICT_REQUESTS_PER_MINUTE if options["strict"] else options["rpm"],
            "tokens_per_minute": options["tpm"],
            "concurrency": options["concurrency"],
            "monthly_budget_usd": _dollars(options["budget"]),
        }
        for name, value in limits.items():
            if value is not None and (value < 0 or (value == 0 and name != "monthly_budget_usd") or value >= 10**9 * 2):
                raise CommandError(f"{name}: {value} is out of range")
        if not options["name"].strip() or len(options["name"]) > 64:
            raise CommandError("the name may have 1 to 64 characters")
        allowed = [name.strip() for name in options["models"].split(",") if name.strip()]
        if any(len(name) > 128 for name in allowed):
            raise CommandError("--models: a model name may have 128 characters")
        project = self._project(options["project"])
        _, secret = keys.create(
            project=project,
            name=options["name"],
            limits={name: value for name, value in limits.items() if value is not None},
            allowed_models=allowed,
        )
        self.stderr.write(f"API key {options['name']} of project {project.name}; it is not shown again:")
        self.stdout.write(secret)

    def _project(self, name: str) -> Project:
        try:
            Project(name=name).full_clean(validate_unique=False, validate_constraints=False)
        except ValidationError as error:
            raise CommandError(f"project {name}: {'; '.join(error.messages)}") from None
        project, is_new = Project.objects.get_or_create(name=name)
        if is_new:
            audit.record("create", project, after=audit.snapshot(project))
        return project


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text).quantize(Decimal("0.0001"))
    except InvalidOperation:
        raise CommandError("--budget: give US dollars, such as 50 or 12.50") from None
    if not amount.is_finite() or not 0 <= amount < 10**8:
        raise CommandError("--budget: give US dollars from 0 to 99999999, such as 50 or 12.50")
    return amount
