"""The data folder of one `up`: its lock, and files in it that only their owner may read and never see half written."""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

LOCK, UP, SECRETS = "up.lock", "up.json", "secrets.json"


class DataFolderError(Exception):
    """The data folder cannot be used now; the message says why and what to do."""


def make(folder: Path) -> Path:
    """The data folder, made if absent; absolute. Others may not list it, and as an ordinary user not even pass it.

    As root it may be passed through: PostgreSQL, which refuses root, lives in it as another user.
    """
    folder = folder.expanduser().absolute()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (folder / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataFolderError(f"cannot use the data folder {folder}: {error.strerror}") from None
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the data folder for this process; the kernel lets go of it when the process ends, however it ends.

    Raises DataFolderError when another `up` holds it, or it belongs to another user.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        raise DataFolderError(
            f"the data folder {folder} belongs to another user. Run as that user, or choose another: --data-dir"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise DataFolderError(_who_runs(folder)) from None
    try:
        yield
    finally:
        os.close(file)


def _who_runs(folder: Path) -> str:
    try:
        state = json.loads((folder / UP).read_text())
        where = f" (process {state['pids']['supervisor']}{', ' + state['url'] if state.get('url') else ''})"
    except (OSError, ValueError, KeyError):
        where = ""
    return f"Redrive is running already with the data folder {folder}{where}. Stop it, or choose another: --data-dir"


def write_private(path: Path, content: Any) -> None:
    """Writes `content` as JSON, readable by its owner alone; a reader sees the old file or the new, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_secrets(folder: Path) -> dict[str, Any]:
    """What is in `secrets.json`; what is missing there is generated and saved. `api_key` stays "" until one exists.

    Raises DataFolderError when the file is there but cannot be read: new encryption keys would lock out old data.
    """
    path = folder / SECRETS
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise DataFolderError(f"cannot read {path}: {error}. Restore it, or move it away to start afresh.") from None
    generated = {
        "secret_key": secrets.token_urlsafe(48),
        "encryption_keys": [Fernet.generate_key().decode()],
        "postgres_password": secrets.token_urlsafe(24),
        "valkey_password": secrets.token_urlsafe(24),
        "admin_password": secrets.token_urlsafe(12),
        "api_key": "",
    }
    if generated.keys() - known.keys():
        known = {**generated, **known}
        write_private(path, known)
    return dict(known)
