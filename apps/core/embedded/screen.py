"""The screen a person sees when everything runs: where it is, how to get in, a first request to paste."""

import os
import sys
from contextlib import suppress

from apps.core.embedded.model import ALIAS
from apps.core.embedded.service import Run

BODY = '{"model": "%s", "messages": [{"role": "user", "content": "Say hello."}]}'


def say(text: str) -> None:
    """One line to stderr about what is going on; a terminal that has gone away is no reason to stop."""
    with suppress(OSError):
        sys.stderr.write(f"redrive: {text}\n")
        sys.stderr.flush()


def show(run: Run) -> None:
    """Prints the screen to stdout; in colour when that is a terminal."""
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    with suppress(OSError):
        sys.stdout.write(text(run, colours=colours) + "\n")
        sys.stdout.flush()


def text(run: Run, *, colours: bool = False) -> str:
    """The screen. Without the web server it names the databases and where their URLs are."""

    def strong(words: str) -> str:
        return f"\033[1;36m{words}\033[0m" if colours else words

    rows = _web_rows(run) if run.url else _store_rows(run)
    lines = [f"  {title:<10} {strong(value)}" for title, value in rows]
    if run.url:
        lines += ["", "  Try it:", "", *(f"  {line}" for line in _curl(run).splitlines())]
    lines += ["", f"  Logs are in {run.data_dir / 'log'}. Ctrl-C stops everything."]
    return "\n".join(["", *lines, ""])


def _web_rows(run: Run) -> list[tuple[str, str]]:
    password = run.facts.get("admin_password")
    login = f"admin / {password}" if password else "your own account (the generated password was changed)"
    rows = [
        ("Redrive", run.url),
        ("API", f"{run.url}/v1"),
        ("API docs", f"{run.url}/v1/docs"),
        ("API key", run.secrets["api_key"]),
        ("Admin", f"{run.url}/admin/"),
        ("Sign in", login),
    ]
    return rows if run.model_url else [*rows, ("Models", "none of our own: add a provider in the admin")]


def _store_rows(run: Run) -> list[tuple[str, str]]:
    rows = [(name, f"127.0.0.1:{run.ports[name]}") for name in sorted(run.names & run.ports.keys())]
    return [*rows, ("URLs", f"with passwords, in {run.data_dir / 'up.json'}")]


def _curl(run: Run) -> str:
    model = ALIAS if run.model_url else "YOUR-MODEL"
    return (
        f"curl {run.url}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {run.secrets["api_key"]}" \\\n'
        f'  -H "Content-Type: application/json" \\\n'
        f"  -d '{BODY % model}'"
    )
