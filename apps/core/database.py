"""The one door from async code to Postgres: `in_db` for a verb, `Batch` for group commit.

Verbs that touch Postgres are synchronous and hold their own `transaction.atomic()`.
"""

import asyncio
import contextlib
import contextvars
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from psycopg import sql

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
log = structlog.get_logger(__name__)


class DatabaseTimeout(OperationalError):
    """Postgres took a query and did not answer."""


# Of Django, and of psycopg where Django does not translate (COPY, the pool).
LOST_CONNECTION = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
# SQLSTATEs of the same classes that tell of the statement, not of the connection: it was cancelled (57014) or is too
# much for the server (54xxx). They come again with the same rows.
_OF_THE_STATEMENT = ("57014", "54")
WRITERS = 3  # batches of one process that are often written at the same time
TRIES_ALONE = 3  # of an item whose statement fails alone: the server may just be busy
MAX_BYTES = 16 * 1024 * 1024  # of items with a size, in one write


def _is_away(error: BaseException) -> bool:
    """Whether the same statement may succeed once Postgres is back, or by itself (a deadlock)."""
    cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
    state = getattr(cause, "sqlstate", None) or ""
    return not state.startswith(_OF_THE_STATEMENT)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # Fewer than the pool's connections, so that the writers of the batches find one.
    return ThreadPoolExecutor(max(1, settings.REDRIVE.database_pool_size - WRITERS), thread_name_prefix="redrive-db")


def with_connection(call: Callable[[], R]) -> R:
    """Call in a thread of our own, as Django calls a view: connections that broke are closed before and after."""
    close_old_connections()
    try:
        return call()
    finally:
        close_old_connections()


async def in_db(verb: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a synchronous verb in a database thread and return what it returns.

    A cancelled caller does not undo the verb: it runs to its end and its transaction stands. Raises
    DatabaseTimeout after twice REDRIVE_DATABASE_TIMEOUT: a frozen Postgres answers nothing, not even an error.
    """
    call = functools.partial(verb, *args, **kwargs)
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().run_in_executor(_threads(), lambda: context.run(with_connection, call))
    work.add_done_callback(_heard)
    try:
        async with asyncio.timeout(settings.REDRIVE.database_timeout * 2):
            return await asyncio.shield(work)
    except TimeoutError:
        raise DatabaseTimeout("Postgres did not answer in time") from None


def _heard(work: "asyncio.Future[R]") -> None:
    # Of a caller that has gone nobody asks for the error any more.
    if not work.cancelled():
        work.exception()


def storable(text: str) -> str:
    """The text with escapes for what Postgres refuses: NUL and lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def related(row: Any, name: str) -> Any:
    """What a prefetched foreign key without a constraint points to; None if that is gone."""
    return row._state.fields_cache.get(name)


def copy_rows(table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """COPY rows into a table, in the caller's transaction: per row a tenth of what parameters of an INSERT cost."""
    if not rows:
        return
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


class Batch(Generic[T, R]):
    """Group commit: callers append items, one writer thread writes what waits in one call (one transaction).

    write: takes the items, commits them, returns one result an item in the same order.
    linger: seconds to gather items before a write; a kill -9 loses at most that much.
    backlog: items that may wait while Postgres is away; beyond it `is_full()` and the caller should refuse work.
    poisoned: told of the one item that failed alone, with its error; its future gets that error too.
    size: bytes of an item; a write takes MAX_BYTES of them, and one item more, at most.
    patience: seconds until a future of `submit` raises TimeoutError; its item is written all the same.

    A lost connection is retried for ever with the items kept. Any other failure bisects the batch until the item
    at fault stands alone, so that one bad row never costs its neighbours.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Sequence[R]],
        *,
        name: str,
        linger: float = 0.0,
        max_items: int = 1000,
        backlog: int = 10_000,
        poisoned: Callable[[T, Exception], None] | None = None,
        size: Callable[[T], int] | None = None,
        patience: float | None = None,
    ) -> None:
        self._write = write
        self._name = name
        self._linger = linger
        self._max_items = max_items
        self._backlog = backlog
        self._poisoned = poisoned
        self._size = size
        self._patience = patience
        self._impatient: deque[tuple[float, asyncio.Future[R]]] = deque()
        self._waiting: deque[tuple[T, asyncio.Future[R] | None]] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def is_full(self) -> bool:
        """Whether as many items wait as may."""
        return len(self._waiting) >= self._backlog

    def append(self, item: T) -> None:
        """Queue an item that nobody waits for. Any thread may call it."""
        self._put(item, None)

    def submit(self, item: T) -> "asyncio.Future[R]":
        """Queue an item from a running loop. The future holds its result once it is committed; cancelling it does not
        take the item back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if self._patience is not None:
            if not self._impatient or self._impatient[0][1].get_loop() is not loop:
                self._impatient.clear()
                loop.call_later(self._patience, self._lose_patience)
            self._impatient.append((loop.time() + self._patience, future))
        self._put(item, future)
        return future

    def _lose_patience(self) -> None:
        # One timer for all that wait, not one for each: they stand in the order of their ends.
        while self._impatient:
            end, future = self._impatient[0]
            left = end - future.get_loop().time()
            if left > 0 and not future.done():
                future.get_loop().call_later(left, self._lose_patience)
                return
            self._impatient.popleft()
            if not future.done():
                future.set_exception(TimeoutError())

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits, at most `timeout` seconds. False: items are still unwritten."""
        self._closing = True
        self._wake.set()
        try:
            return self._idle.wait(timeout)
        finally:
            self._closing = False

    def _put(self, item: T, future: "asyncio.Future[R] | None") -> None:
        with self._lock:
            self._waiting.append((item, future))
            self._idle.clear()
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"redrive-batch-{self._name}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._linger and not self._closing and len(self._waiting) < self._max_items:
                time.sleep(self._linger)
            self._wake.clear()
            # The items stay in the queue until they are written, so that the backlog counts them.
            taken = self._next()
            results = self._write_or_halve([item for item, _ in taken]) if taken else []
            for _ in taken:
                self._waiting.popleft()
            _answer(taken, results)
            with self._lock:
                if not self._waiting:
                    self._idle.set()
            if self._waiting:
                self._wake.set()

    def _next(self) -> "list[tuple[T, asyncio.Future[R] | None]]":
        count = min(len(self._waiting), self._max_items)
        taken = []
        bytes_left = MAX_BYTES
        for index in range(count):
            if bytes_left <= 0:
                break
            taken.append(self._waiting[index])
            if self._size is not None:
                bytes_left -= self._size(self._waiting[index][0])
        return taken

    def _write_or_halve(self, items: list[T]) -> list[R | Exception]:
        try:
            return list(self._write_patiently(items))
        except Exception as error:
            if len(items) > 1:
                middle = len(items) // 2
                return self._write_or_halve(items[:middle]) + self._write_or_halve(items[middle:])
            log.error("batch_item_refused", batch=self._name, exc_info=error)
            if self._poisoned is not None:
                self._poisoned(items[0], error)
            return [error]

    def _write_patiently(self, items: list[T]) -> Sequence[R]:
        # Here and not around the halving: what one half has committed must not be written again.
        delay = 0.1
        for tries in itertools.count(1):
            try:
                return with_connection(lambda: self._write(items))
            except LOST_CONNECTION as error:
                if not _is_away(error) and (len(items) > 1 or tries >= TRIES_ALONE):
                    raise
                log.warning("batch_waits_for_database", batch=self._name, waiting=len(self._waiting), error=str(error))
                time.sleep(delay)
                delay = min(delay * 2, 2.0)
        raise AssertionError("it counts for ever")


def _answer(taken: "list[tuple[T, asyncio.Future[R] | None]]", results: "list[R | Exception]") -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[R], R | Exception]]] = {}
    for (_, future), result in zip(taken, results, strict=True):
        if future is not None:
            by_loop.setdefault(future.get_loop(), []).append((future, result))
    for loop, answers in by_loop.items():
        # A closed loop has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: "list[tuple[asyncio.Future[R], R | Exception]]") -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
