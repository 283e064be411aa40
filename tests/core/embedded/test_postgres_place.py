"""Where PostgreSQL lives: beside everything else if its user can reach that, in the state folder if not."""

import os
import stat

import pytest

from apps.core.embedded import postgres_place
from apps.core.embedded.postgres import refuse_other_major
from apps.core.embedded.service import UpError, User

STRANGER = User(uid=987_654, gid=987_654)


def owner_of(path):
    facts = path.stat()
    return User(facts.st_uid, facts.st_gid)


@pytest.fixture
def outside(tmp_path_factory):
    """A folder that strangers may pass, whatever pytest's own folders allow."""
    import shutil
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_every_folder_above_must_let_the_user_pass(outside):
    deep = outside / "closed" / "open" / "file"
    deep.parent.mkdir(parents=True)
    assert postgres_place.reaches(STRANGER, deep)
    deep.parents[1].chmod(0o700)
    assert not postgres_place.reaches(STRANGER, deep)
    assert postgres_place.reaches(owner_of(outside), deep)


def test_the_group_counts_for_its_members_only(outside):
    folder = outside / "folder"
    folder.mkdir()
    folder.chmod(0o701)
    members = User(STRANGER.uid, folder.stat().st_gid)
    assert postgres_place.reaches(STRANGER, folder / "file")
    assert not postgres_place.reaches(members, folder / "file")


def test_a_reachable_data_folder_holds_its_database(outside):
    assert postgres_place.data_folder_as_root(outside, outside / "state") == outside / "postgres"
    assert not (outside / "state").exists()


@pytest.fixture
def closed(outside):
    folder = outside / "closed"
    folder.mkdir(mode=0o700)
    return folder


def test_a_closed_data_folder_links_to_the_state_folder(closed, outside):
    data = postgres_place.data_folder_as_root(closed, outside / "state")
    assert data.is_relative_to(outside / "state")
    assert os.readlink(closed / "postgres") == str(data)
    assert postgres_place.reaches(STRANGER, data)
    assert stat.S_IMODE(data.parent.stat().st_mode) == 0o711
    assert postgres_place.data_folder_as_root(closed, outside / "state") == data


def test_a_data_folder_that_was_moved_says_how_to_go_on(closed, outside):
    postgres_place.data_folder_as_root(closed, outside / "state")
    moved = closed.rename(outside / "moved")
    with pytest.raises(UpError, match="was moved or copied"):
        postgres_place.data_folder_as_root(moved, outside / "state")


def test_data_of_a_removed_data_folder_is_put_aside_not_lost(closed, outside, capsys):
    data = postgres_place.data_folder_as_root(closed, outside / "state")
    data.mkdir()
    (data / "PG_VERSION").write_text("18")
    (closed / "postgres").unlink()
    assert postgres_place.data_folder_as_root(closed, outside / "state") == data
    assert not data.exists()
    assert len(list((outside / "state").glob("*/postgres/PG_VERSION"))) == 1
    assert "is kept in" in capsys.readouterr().err


def test_another_major_version_is_refused(tmp_path):
    refuse_other_major(tmp_path, "18.6.3")
    (tmp_path / "PG_VERSION").write_text("18\n")
    refuse_other_major(tmp_path, "18.6.3")
    (tmp_path / "PG_VERSION").write_text("17\n")
    with pytest.raises(UpError, match="PostgreSQL 17; this Redrive brings PostgreSQL 18"):
        refuse_other_major(tmp_path, "18.6.3")
