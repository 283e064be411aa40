"""The data folder: one `up` at a time, secrets only for their owner, no file ever half written."""

import json
import os
import stat
import threading

import pytest

from apps.core.embedded import data_folder
from apps.core.embedded.data_folder import DataFolderError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_cannot_be_listed_by_others(tmp_path):
    folder = data_folder.make(tmp_path / "a" / "b")
    assert mode(folder) & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH) == 0
    assert mode(folder / "log") == 0o700


def test_a_folder_that_was_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    assert mode(data_folder.make(tmp_path)) == 0o750


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="cannot use the data folder"):
        data_folder.make(tmp_path / "file")


def test_the_lock_is_held_once_and_names_who_holds_it(tmp_path):
    with data_folder.locked(tmp_path):
        data_folder.write_private(tmp_path / "up.json", {"url": "http://127.0.0.1:8000", "pids": {"supervisor": 4711}})
        with (
            pytest.raises(DataFolderError, match=r"process 4711, http://127\.0\.0\.1:8000"),
            data_folder.locked(tmp_path),
        ):
            pass
    with data_folder.locked(tmp_path):
        pass


def test_secrets_are_made_once_and_private(tmp_path):
    made = data_folder.load_secrets(tmp_path)
    assert mode(tmp_path / "secrets.json") == 0o600
    assert data_folder.load_secrets(tmp_path) == made
    assert made["api_key"] == ""
    assert len(made["encryption_keys"]) == 1


def test_secrets_that_came_later_are_added_to_old_ones(tmp_path):
    (tmp_path / "secrets.json").write_text(json.dumps({"secret_key": "old", "unknown": 1}))
    known = data_folder.load_secrets(tmp_path)
    assert known["secret_key"] == "old"
    assert known["unknown"] == 1
    assert known["postgres_password"]
    assert mode(tmp_path / "secrets.json") == 0o600


def test_secrets_that_cannot_be_read_are_never_replaced(tmp_path):
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(DataFolderError, match="cannot read"):
        data_folder.load_secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == "{"


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    path = tmp_path / "up.json"
    data_folder.write_private(path, ["x" * 10_000])
    done = threading.Event()

    def rewrite():
        for _ in range(50):
            data_folder.write_private(path, ["x" * 10_000])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        while not done.is_set():
            assert json.loads(path.read_text()) == ["x" * 10_000]
    finally:
        writer.join()
    assert os.listdir(tmp_path) == ["up.json"]


def test_content_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "up.json"
    data_folder.write_private(path, {"a": 1})
    with pytest.raises(TypeError):
        data_folder.write_private(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["up.json"]
