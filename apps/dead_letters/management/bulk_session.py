"""One bulk operation from a terminal: waits until it is counted, asks, starts it, holds, follows.

The clock does the work; this only looks on. A terminal that goes away changes nothing: what was not started is
cancelled, what was started goes on. Ctrl-C before the end of the hold takes the operation back, later it stops looking.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO
from uuid import UUID

from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError

from apps.core.database import LOST_CONNECTION, with_connection
from apps.core.errors import RedriveError
from apps.dead_letters import bulk_states
from apps.dead_letters.bulk import control, report
from apps.dead_letters.bulk.plan import Action
from apps.dead_letters.management import bulk_words
from apps.dead_letters.models import BulkOperation
from apps.tasks import liveness

DONE, REFUSED, USAGE, RUNNING = 0, 1, 2, 3  # exit codes
LOOK = 0.2  # seconds between two looks
TELL = 5.0  # seconds between two lines where the output is no terminal
TAKEN_BACK = "Taken back: nothing was done."


class Session:
    """Talks with whoever typed the command. patience: seconds to wait for the count."""

    def __init__(self, stdin: TextIO, stdout: OutputWrapper, stderr: OutputWrapper, *, patience: float = 60.0) -> None:
        self._stdin, self._out, self._err = stdin, stdout, stderr
        self._patience = patience
        self._told, self._told_at = "", 0.0
        self._warned = False
        self._interrupted = False

    def run(
        self, operation: BulkOperation, *, terms: dict[str, Any], yes: int | bool | None, dry_run: bool, follow: bool
    ) -> int:
        """See an operation that was just made to its start, or with `follow` to its end; the exit code."""
        try:
            operation = self._counted(operation.pk)
            for line in bulk_words.about(operation, rate=terms["rate"]):
                self._out.write(line)
            if not operation.pending:
                return DONE if not operation.total else REFUSED
            if dry_run:
                self._drop(operation.pk)
                return DONE
            operation = control.start(operation.pk, confirm=self._confirmed(operation, yes), **terms)
        except BaseException:
            self._drop(operation.pk)
            raise
        self._out.write(f"Operation {operation.pk.hex}")
        if not self._held(operation.pk):
            return REFUSED
        return self.follow(operation.pk) if follow else self._left(operation.pk)

    def follow(self, operation_id: UUID) -> int:
        """Tell how far it is until it has ended or stopped; the exit code."""
        with self._listening():
            while True:
                operation = self._look(operation_id)
                if operation is not None:
                    is_over = operation.state in (*bulk_states.FINAL, bulk_states.STOPPED)
                    self._tell(bulk_words.progress(operation), at_once=is_over)
                    if is_over:
                        return self._ended(operation)
                if self._interrupted:
                    return self._left(operation_id)
                _wait(LOOK)

    def _counted(self, operation_id: UUID) -> BulkOperation:
        until = time.monotonic() + self._patience
        with self._listening():
            while True:
                operation = self._look(operation_id)
                if operation is not None and operation.state != bulk_states.COUNTING:
                    self._end_line()
                    if operation.state not in (bulk_states.READY, bulk_states.DONE):
                        raise CommandError(f"It is {operation.state}: {operation.stop_reason or 'by somebody else'}")
                    return operation
                if operation is not None:
                    self._tell(f"counting: {operation.total:,} letters so far")
                if self._interrupted:
                    raise CommandError(TAKEN_BACK)
                if time.monotonic() > until:
                    raise CommandError(f"It was not counted within {self._patience:g} s, and is cancelled.")
                _wait(LOOK)

    def _confirmed(self, operation: BulkOperation, yes: int | bool | None) -> int | None:
        """The number that was typed, or given beforehand. Raises CommandError for who does not go on."""
        if yes is not None:
            if yes is not True and yes != operation.pending:
                raise CommandError(f"It is {operation.pending:,} letters now, not {yes:,}. Nothing was done.")
            return None if yes is True else yes
        is_large = operation.pending > control.LARGE[Action(operation.action)]
        question = f"Type {operation.pending} to start: " if is_large else "Start? [y/N] "
        self._out.write(question, ending="")
        self._out.flush()
        try:
            answer = self._stdin.readline().strip()
        except KeyboardInterrupt:
            answer = ""
            self._out.write("")
        if answer == str(operation.pending):
            return operation.pending
        if not is_large and answer.lower() in ("y", "yes"):
            return None
        raise CommandError(TAKEN_BACK)

    def _held(self, operation_id: UUID) -> bool:
        """Wait for the end of the hold; False: it was taken back meanwhile."""
        with self._listening():
            while True:
                operation = self._look(operation_id)
                if operation is not None and operation.state != bulk_states.HOLDING:
                    self._end_line()
                    return True
                if operation is not None:
                    left = report.of(operation).hold_left
                    self._tell(f"starts in {left:.0f} s; Ctrl-C takes it back", counts_down=True)
                if self._interrupted:
                    self._end_line()
                    return not self._take_back(operation_id)
                _wait(LOOK)

    def _take_back(self, operation_id: UUID) -> bool:
        try:
            control.undo(operation_id)
            control.cancel(operation_id, reason="taken back at the terminal")
        except RedriveError:
            self._err.write(f"It has begun. To end it: manage.py redrive cancel {operation_id.hex}")
            return False
        self._err.write(TAKEN_BACK)
        return True

    def _ended(self, operation: BulkOperation) -> int:
        self._end_line()
        for line in bulk_words.outcome(operation):
            self._out.write(line)
        if operation.state == bulk_states.STOPPED:
            self._out.write(f"To go on: manage.py redrive resume {operation.pk.hex}; to end it: cancel")
        whole = operation.state == bulk_states.DONE and not operation.failed and not operation.cancelled
        return DONE if whole else REFUSED

    def _left(self, operation_id: UUID) -> int:
        operation = control.find(operation_id)
        if operation.state in (*bulk_states.FINAL, bulk_states.STOPPED):
            self._tell(bulk_words.progress(operation), at_once=True)
            return self._ended(operation)
        self._end_line()
        self._out.write(f"It goes on by itself. To look: manage.py redrive show {operation_id.hex} --follow")
        return RUNNING

    def _drop(self, operation_id: UUID) -> None:
        """Cancel what was not started, so that its groups are free at once."""
        with contextlib.suppress(RedriveError, DatabaseError):
            if control.find(operation_id).state in (bulk_states.COUNTING, bulk_states.READY):
                control.cancel(operation_id, reason="not started")

    def _look(self, operation_id: UUID) -> BulkOperation | None:
        """The operation as it is now, or None while the database does not answer."""
        try:
            operation = with_connection(lambda: control.find(operation_id))
            if not self._warned and operation.is_active and liveness.is_silent(liveness.chores()):
                self._warned = True
                self._end_line()
                self._err.write("No clock ticks, so nothing goes on. Start one: manage.py clock")
        except LOST_CONNECTION:
            self._tell("the database does not answer; waiting for it")
            return None
        return operation

    def _tell(self, line: str, *, at_once: bool = False, counts_down: bool = False) -> None:
        """Show how far it is: in place on a terminal; else a line for each new state, and now and then."""
        if self._out.isatty():
            if line != self._told:
                self._out.write("\r" + line.ljust(len(self._told)), ending="")
                self._out.flush()
        else:
            news = line.partition(":")[0] != self._told.partition(":")[0] and not (counts_down and self._told)
            later = time.monotonic() - self._told_at > TELL
            if line == self._told or not (news or later or at_once):
                return
            self._out.write(line)
            self._told_at = time.monotonic()
        self._told = line

    def _end_line(self) -> None:
        if self._told and self._out.isatty():
            self._out.write("")
        self._told = ""

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Ctrl-C is noted meanwhile, and cuts no statement off."""
        self._interrupted = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, *_: Any) -> None:
        self._interrupted = True


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)
