"""Evidence that the gateway did its duties while measured: ledger rows and Redis script calls, counted."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from redis import Redis


@dataclass(frozen=True)
class Tally:
    """Counters of the gateway's own stores at one moment; `ledger_rows` is None without such a table."""

    ledger_rows: int | None
    script_calls: int


def take(up: dict[str, Any]) -> Tally:
    """Count now; `up` is the content of up.json."""
    with psycopg.connect(str(up["database_url"])) as connection:
        rows = ledger_rows(connection)
    with Redis.from_url(str(up["redis_url"])) as client:
        commands = client.info("commandstats")
    names = ("evalsha", "eval", "fcall")
    return Tally(rows, sum(int(commands.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names))


def ledger_rows(connection: "psycopg.Connection[tuple[object, ...]]") -> int | None:
    tables = connection.execute(
        "SELECT relname FROM pg_stat_user_tables WHERE relname LIKE '%ledger%' ORDER BY relname"
    ).fetchall()
    if not tables:
        return None
    query = sql.SQL("SELECT count(*) FROM {}")
    counts = [connection.execute(query.format(sql.Identifier(str(name)))).fetchone() for (name,) in tables]
    return max(int(str(count[0])) for count in counts if count)


def missing(before: Tally, after: Tally, requests: int) -> list[str]:
    """What was left undone, in words; [] when every answered request has its row and its trip to Redis."""
    found = []
    if before.ledger_rows is None or after.ledger_rows is None:
        found.append("no ledger table was found")
    elif (rows := after.ledger_rows - before.ledger_rows) < requests:
        found.append(f"{rows} ledger rows for {requests} answers")
    if (calls := after.script_calls - before.script_calls) < requests:
        found.append(f"{calls} Redis script calls for {requests} answers")
    return found
