#!/usr/bin/env python
"""Redrive's command line. `manage.py up` starts everything; `manage.py help` lists the rest."""

import os
import sys

NEED_NO_SERVICES = {"up", "help", "version", "--help", "-h", "--version", "check", "makemigrations", "collectstatic"}


def main() -> int:
    """Run one management command; exit 2 with one clear line when the configuration is wrong or nothing runs."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from apps.core.conf import ConfigurationError, load

    try:
        conf = load()
    except ConfigurationError as error:
        print(f"redrive: {error}", file=sys.stderr)
        return 2
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    asks_for_help = bool({"--help", "-h"} & set(sys.argv))
    if command not in NEED_NO_SERVICES and not asks_for_help and not (conf.database_url and conf.redis_url):
        print(
            f"redrive: no services are running (data folder: {conf.data_dir}). Start them with scripts/up, or set "
            "REDRIVE_DATABASE_URL and REDRIVE_REDIS_URL.",
            file=sys.stderr,
        )
        return 2
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
