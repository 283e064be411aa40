"""All that `up` can start, in the order of starting; stopping goes the other way. A new process is one entry here."""

from apps.core.embedded import model, postgres, preparation, tasks, valkey, web
from apps.core.embedded.service import Entry, Service

CATALOGUE: tuple[Entry, ...] = (
    postgres.SERVICE,
    valkey.SERVICE,
    model.SERVICE,
    preparation.PREPARE,
    web.SERVICE,
    preparation.API_KEY,
    tasks.WORKER,
    tasks.QUARANTINE,
    tasks.CLOCK,
    tasks.BEAT,
)

SERVICES: dict[str, Service] = {entry.name: entry for entry in CATALOGUE if isinstance(entry, Service)}


def entries_of(names: frozenset[str]) -> list[Entry]:
    """The catalogue's entries that a run of these services consists of, in order."""
    wanted = ({entry.name} if isinstance(entry, Service) else set(entry.needed_by) for entry in CATALOGUE)
    return [entry for entry, any_of in zip(CATALOGUE, wanted, strict=True) if any_of & names]
