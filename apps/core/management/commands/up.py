"""`manage.py up`: starts Redrive with everything it needs, and stops it all again."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.embedded.catalogue import SERVICES
from apps.core.embedded.plan import Options
from apps.core.embedded.service import ROOT
from apps.core.embedded.start import start

DESCRIPTION = """\
Starts PostgreSQL, Valkey, a small local model and Redrive on this machine, prints where they are, and keeps them
running until Ctrl-C. The first start also makes the database, an administrator and an API key.
"""

EPILOG = f"""\
processes: {", ".join(SERVICES)}

examples:
  scripts/up                                  everything; the web server on port 8000 if that is free
  scripts/up --port 9000 --no-model           port 9000, without the local model
  scripts/up --only postgres,valkey           only the databases; their URLs are in DATA_DIR/up.json
  REDRIVE_DATABASE_URL=postgresql://... scripts/up    with a PostgreSQL of your own
  REDRIVE_REDIS_URL=redis://... scripts/up            with a Redis or Valkey of your own

The data folder holds the database, generated keys (secrets.json), logs (log/) and, while Redrive runs, up.json:
addresses, logins, process ids. Two data folders run side by side. Exit codes: 0 stopped by a signal, 1 something
failed, 2 refused (port busy, running already, wrong option).
"""


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ArgumentTypeError(f"{text} is no port: 1 to 65535")
    return int(text)


class Command(BaseCommand):
    help = DESCRIPTION
    requires_system_checks: list[str] = []
    suppressed_base_arguments = {
        "--version", "-v", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color",
        "--skip-checks",
    }  # fmt: skip

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, epilog=EPILOG, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=_port, help="port of the web server (default: 8000, or another if it is busy)"
        )
        parser.add_argument("--host", default="127.0.0.1", help="address of the web server (default: 127.0.0.1)")
        parser.add_argument("--only", default="", metavar="NAME,NAME", help="start only these processes")
        parser.add_argument("--no-model", action="store_true", help="leave the local model out")
        parser.add_argument("--data-dir", type=Path, help="data folder (default: REDRIVE_DATA_DIR, or .redrive here)")

    def handle(self, **options: Any) -> None:
        data_dir = options["data_dir"] or os.environ.get("REDRIVE_DATA_DIR") or ROOT / ".redrive"
        sys.exit(
            start(
                Options(
                    data_dir=Path(data_dir),
                    host=options["host"],
                    port=options["port"],
                    only=tuple(name.strip() for name in options["only"].split(",") if name.strip()),
                    no_model=options["no_model"],
                )
            )
        )
