"""What an adapter promises and what a call is made of: plain values, no requests, no rows."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

Operation = Literal["chat/completions", "embeddings"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider as the hot path sees it. Times are seconds."""

    id: UUID
    name: str
    kind: str
    base_url: str
    headers: dict[str, str] = field(repr=False)  # authorization included
    connect_timeout: float = 5
    first_token_timeout: float = 60
    idle_timeout: float = 60
    total_timeout: float = 600
    max_concurrency: int = 1000
    breaker_failures: int = 3
    breaker_window: float = 60
    breaker_reset: float = 30
    version: str = ""  # changes whenever the provider is saved


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One place that serves a route."""

    provider: ProviderConfig
    model: str
    position: int = 1
    weight: int = 1
    label: str = field(init=False, compare=False)  # provider/model, for people
    key: str = field(init=False, compare=False)  # of its circuit breaker

    def __post_init__(self) -> None:
        # Made once: they are needed several times in each call.
        object.__setattr__(self, "label", f"{self.provider.name}/{self.model}")
        object.__setattr__(self, "key", f"{self.provider.id.hex}:{self.model}")

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A public model name and its upstreams. Prices: nano-USD a token, None where the published price counts."""

    public_name: str
    upstreams: tuple[UpstreamConfig, ...]
    created: int = 0  # unix seconds
    default_params: Json = field(default_factory=dict)
    context_window: int = 128_000
    max_output_tokens: int = 16_384
    forward_unknown: bool = False
    fallback_after: float | None = None
    input_nusd: float | None = None
    output_nusd: float | None = None


@dataclass(slots=True)
class Usage:
    """Tokens of one upstream request, as the upstream counted them or, `estimated`, as we did."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False


@dataclass(slots=True)
class Attempt:
    """One upstream request, for the ledger. Times: seconds; `started` by the monotonic clock."""

    number: int
    upstream: UpstreamConfig
    started: float
    latency: float = 0.0
    first_token: float | None = None
    status: int | None = None  # HTTP status of the upstream, None where none came
    error_code: str = ""
    upstream_request_id: str = ""
    reached: bool = False  # whether the upstream may have done work


@dataclass(slots=True)
class Answer:
    """A whole answer: the upstream's JSON object."""

    body: Json
    status: int
    upstream_request_id: str = ""


class UpstreamStream(Protocol):
    """An open stream of an upstream; its chunks are OpenAI's chunk objects."""

    status: int
    upstream_request_id: str

    def chunks(self) -> AsyncGenerator[Json, None]:
        """The chunks until the upstream's terminal event. Raises StreamInterrupted or another UpstreamError."""
        ...

    async def close(self) -> None:
        """Abort the request if it still runs. Never raises."""
        ...


class Adapter(Protocol):
    """Speaks one provider's protocol. Every failure is an UpstreamError of providers/errors.py."""

    async def send(self, upstream: UpstreamConfig, operation: Operation, body: Json, *, within: float) -> Answer:
        """One whole request. within: seconds until the answer must be complete."""
        ...

    async def open(
        self, upstream: UpstreamConfig, operation: Operation, body: Json, *, first_byte: float, within: float
    ) -> UpstreamStream:
        """Start a streamed request; returns once the upstream's headers say that it succeeds.

        first_byte: seconds until then. within: seconds until the stream must have ended.
        """
        ...
