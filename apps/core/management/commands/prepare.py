"""`manage.py prepare`: brings the database up to date; `up` also has it make the first administrator and API key."""

import json
import sys
from argparse import ArgumentParser
from io import StringIO
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

ONE_AT_A_TIME = 0x52454452  # an advisory lock's number: "REDR"
ADMIN, KEY_NAME, PROVIDER = "admin", "default", "local"


class Command(BaseCommand):
    help = (
        "Migrates the database; does nothing when it is up to date, and waits its turn when another process migrates. "
        "Run it before every deployment's web server. With --bootstrap it reads one JSON object from stdin, all of it "
        'optional: {"admin_password": "...", "wants_api_key": true, "local_provider": {"base_url": "...", "models": '
        '"name,public=name"}}, makes what is missing, and answers with one JSON object as the last line of stdout.'
    )
    requires_system_checks: list[str] = []
    stealth_options = ("stdin",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bootstrap", action="store_true", help="read what else to make from stdin (JSON)")

    def handle(self, **options: Any) -> None:
        wanted = json.load(options.get("stdin") or sys.stdin) if options["bootstrap"] else {}
        try:
            connection.ensure_connection()
        except OperationalError as error:
            raise CommandError(f"the database does not answer: {error}") from None
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")  # building an index may take longer than a request
            cursor.execute("SELECT pg_advisory_lock(%s)", [ONE_AT_A_TIME])
            try:
                # Also when no migration is new: the defaults that code writes after each one may be.
                call_command("migrate", interactive=False, stdout=self.stderr)
                answer = self._bootstrap(wanted)
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ONE_AT_A_TIME])
                cursor.execute("RESET statement_timeout")
        if options["bootstrap"]:
            self.stdout.write(json.dumps(answer))

    def _bootstrap(self, wanted: dict[str, Any]) -> dict[str, Any]:
        password: str = wanted.get("admin_password", "")
        provider = wanted.get("local_provider")
        if password:
            _make_administrator(password)
        if provider:
            models = ("--models", provider["models"], "--keep-routes")
            call_command("add_provider", PROVIDER, "--base-url", provider["base_url"], *models, stdout=self.stderr)
        return {
            "admin_password_is_valid": bool(password) and _is_administrators(password),
            "api_key": _create_api_key() if wanted.get("wants_api_key") else None,
        }


def _make_administrator(password: str) -> None:
    """Only where nobody could administer otherwise: an account that was renamed or closed stays so."""
    users = get_user_model()._default_manager
    if not users.filter(is_superuser=True, is_active=True).exists() and not users.filter(username=ADMIN).exists():
        get_user_model().objects.create_superuser(username=ADMIN, password=password)


def _is_administrators(password: str) -> bool:
    user = get_user_model()._default_manager.filter(username=ADMIN, is_active=True, is_superuser=True).first()
    return user is not None and user.check_password(password)


def _create_api_key() -> str:
    printed = StringIO()
    call_command("create_api_key", KEY_NAME, stdout=printed)
    return printed.getvalue().strip().splitlines()[-1]
