"""Runs `manage.py` commands in this process, as somebody at a terminal or a script would."""

from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command


def ran(name: str, *args: str, code: int = 0, **options: Any) -> str:
    """What a command has written to standard output and error, once it has ended with the exit code."""
    out = StringIO()
    found = 0
    try:
        call_command(name, *args, stdout=out, stderr=out, **options)
    except SystemExit as ended:
        found = int(ended.code or 0)
    except CommandError as refused:
        found = refused.returncode
        out.write(str(refused))
    assert found == code, out.getvalue()
    return out.getvalue()
