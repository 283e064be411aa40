"""The log file of each process: fresh at each start, bounded while it runs, its last lines at hand when one dies."""

import os
from pathlib import Path

MAX_BYTES = 20 * 1024 * 1024


def log_path(data_dir: Path, name: str) -> Path:
    """Where the process `name` writes its log."""
    return data_dir / "log" / f"{name}.log"


def start_afresh(path: Path) -> None:
    """Puts the log of the run before aside as NAME.log.1; one is kept."""
    if path.exists():
        os.replace(path, path.with_name(path.name + ".1"))


def open_log(path: Path) -> int:
    """A file descriptor that appends to the log; the caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def bound(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Copies a log longer than `max_bytes` to NAME.log.1 and empties it; its writer, who appends, goes on."""
    try:
        if path.stat().st_size > max_bytes:
            path.with_name(path.name + ".1").write_bytes(path.read_bytes())
            os.truncate(path, 0)
    except OSError:
        return  # a log that cannot be bounded now is tried again a minute later


def last_lines(path: Path, count: int = 15) -> str:
    """The last `count` lines, or "" without a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-count:])
