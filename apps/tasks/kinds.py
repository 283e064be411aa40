"""The catalogue of kinds: what work exists, how its arguments look, who does it, and within which bounds.

An app registers its own kind from AppConfig.ready (docs/add-a-kind.md):

    kinds.register(Kind("send_report", SendReport, send_report, public=True))

with `class SendReport(BaseModel)` and `async def send_report(run: Run, args: SendReport) -> dict`. The handler
returns a JSON object, the task's result, or raises: a RedriveError says by its class whether a retry can help.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from apps.access.authentication import Caller
from apps.core.errors import InvalidRequest
from apps.tasks import states
from apps.tasks.errors import UnknownKind

DAY = 86_400.0
Json = dict[str, Any]
Handler = Callable[[Any, Any], Awaitable[Json]]  # (attempt.Run, the args) -> the result
Check = Callable[[Caller, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Policy:
    """When a transient failure is tried again: full jitter up to min(cap, base * factor ** n) seconds, or `delays`."""

    base: float = 1.0
    factor: float = 2.0
    cap: float = 600.0
    max_retries: int = 3
    delays: tuple[float, ...] = ()
    park_limit: float = 600.0
    """Seconds a task waits for a closed door (breaker open, budget used up) before it dies."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of task."""

    name: str
    args: type[BaseModel]
    handler: Handler
    version: int = 1
    upcasters: Mapping[int, Callable[[Json], Json]] = field(default_factory=dict)
    """Version n -> how its arguments become those of version n + 1."""
    queue: str = states.DEFAULT
    policy: Policy = Policy()
    check: Check | None = None
    """Refuses at the door what its arguments' schema cannot: (the caller, the args), raises a RedriveError."""
    limit: float = 600.0
    """Seconds of one attempt; at 0.9 of them the handler is told (`Run.soft_limit`)."""
    deadline: float | None = DAY
    """Seconds from the accept; None: the policy alone ends it."""
    public: bool = False
    """Whether clients may name it in `POST /v1/tasks`."""
    announce: bool = True
    """Whether its end raises webhooks and its death alerts."""
    idempotent: bool = True
    """False: an attempt that was lost with its worker is not repeated, the task dies."""


_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Add a kind to the catalogue."""
    if kind.name in _kinds:
        raise ValueError(f"a kind {kind.name!r} is registered already")
    _kinds[kind.name] = kind


def find(name: str) -> Kind:
    """The kind of a name. Raises UnknownKind."""
    try:
        return _kinds[name]
    except KeyError:
        raise UnknownKind(f"No handler knows the kind `{name[:64]}`.") from None


def public(name: str) -> Kind:
    """A kind that clients may ask for. Raises InvalidRequest that names those there are."""
    kind = _kinds.get(name)
    if kind is None or not kind.public:
        known = ", ".join(sorted(kind.name for kind in _kinds.values() if kind.public))
        raise InvalidRequest(f"There is no kind `{name[:64]}`. There are: {known}.", param="kind")
    return kind


def names() -> list[str]:
    """All kinds, sorted."""
    return sorted(_kinds)


def upcast(kind: Kind, version: int, args: Json) -> Json:
    """The arguments in the kind's present version. Raises UnknownKind for one that no upcaster leads on from."""
    while version != kind.version:
        if version not in kind.upcasters:
            raise UnknownKind(f"Version {version} of the kind `{kind.name}` is not known to this code.")
        args = kind.upcasters[version](args)
        version += 1
    return args


def own_queues() -> dict[str, str]:
    """The queues of those kinds whose tasks wait apart from what clients' priorities name."""
    return {kind.name: kind.queue for kind in _kinds.values() if kind.queue not in states.PRIORITIES}


def limits() -> dict[str, float]:
    """Seconds that an attempt of each kind may take."""
    return {kind.name: kind.limit for kind in _kinds.values()}
