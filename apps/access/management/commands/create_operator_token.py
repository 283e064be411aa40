"""Makes a token for an operator's scripts and prints it once, alone, as the last line of standard output."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from apps.access import operator_tokens
from apps.core.errors import RedriveError


class Command(BaseCommand):
    help = (
        "Make a token for /ops/api/ and print it: the last line of standard output is the token, which is not shown "
        "again. It has the rights of its user. Example: manage.py create_operator_token ada --days 30 --name cron"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the user whose rights it has: an active member of the staff")
        parser.add_argument(
            "--days",
            type=int,
            default=operator_tokens.DEFAULT_DAYS,
            help=f"days until it stops working (default {operator_tokens.DEFAULT_DAYS})",
        )
        parser.add_argument("--name", default="", help="what will use it")

    def handle(self, *args: Any, **options: Any) -> None:
        user = get_user_model()._default_manager.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.")
        try:
            token, secret = operator_tokens.create(user=user, name=options["name"], days=options["days"])
        except RedriveError as error:
            raise CommandError(error.message) from None
        self.stderr.write(f"Token of {user.get_username()} until {token.expiry:%Y-%m-%d}; it is not shown again:")
        self.stdout.write(secret)
