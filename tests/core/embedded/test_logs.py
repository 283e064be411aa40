"""Logs of processes: one run each, bounded, the end at hand."""

import os
import stat

from apps.core.embedded import logs


def test_a_new_run_starts_with_an_empty_log_and_keeps_one_old(tmp_path):
    path = tmp_path / "web.log"
    logs.start_afresh(path)
    for text in ("first", "second"):
        path.write_text(text)
        logs.start_afresh(path)
    assert not path.exists()
    assert (tmp_path / "web.log.1").read_text() == "second"


def test_a_log_is_private(tmp_path):
    path = tmp_path / "web.log"
    os.close(logs.open_log(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_log_is_emptied_under_its_writer(tmp_path):
    path = tmp_path / "web.log"
    writer = logs.open_log(path)
    try:
        os.write(writer, b"x" * 100)
        logs.bound(path, max_bytes=100)
        assert path.stat().st_size == 100
        os.write(writer, b"y")
        logs.bound(path, max_bytes=100)
        os.write(writer, b"z")
    finally:
        os.close(writer)
    assert path.read_text() == "z"
    assert (tmp_path / "web.log.1").stat().st_size == 101


def test_bounding_a_log_that_is_not_there_does_nothing(tmp_path):
    logs.bound(tmp_path / "none.log")


def test_the_last_lines(tmp_path):
    path = tmp_path / "web.log"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert logs.last_lines(path, 2) == "line 4998\nline 4999"
    assert logs.last_lines(tmp_path / "none.log") == ""
