"""Log lines are written in groups, none is lost, and what is urgent is written at once."""

import io
import threading

from config.line_writer import LineWriter
from tests.races import together


class Stream(io.BytesIO):
    """Notes that it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        self.written.set()


def test_a_line_is_written_soon() -> None:
    stream = Stream()
    LineWriter(stream).logger().info(b"one")
    assert stream.written.wait(2)
    assert stream.getvalue() == b"one\n"


def test_an_error_is_written_at_once_and_after_what_came_before_it() -> None:
    stream = Stream()
    logger = LineWriter(stream).logger()
    logger.info(b"one")
    logger.error(b"two")
    assert stream.getvalue() == b"one\ntwo\n"


def test_no_line_of_eight_threads_is_lost_or_torn() -> None:
    stream = Stream()
    writer = LineWriter(stream)
    logger = writer.logger()

    def log(number: int) -> None:
        for line in range(500):
            (logger.info if line % 50 else logger.warning)(b"%d-%d" % (number, line))

    together(8, log)
    writer.flush()
    assert sorted(stream.getvalue().split()) == sorted(b"%d-%d" % (n, line) for n in range(8) for line in range(500))


def test_a_log_that_nobody_reads_ends_nothing() -> None:
    stream = Stream()
    writer = LineWriter(stream)
    stream.close()
    writer.logger().error(b"one")
