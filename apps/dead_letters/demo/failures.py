"""What goes wrong in the demo: eight causes as providers and we really put them, each with when it happens."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from apps.core.errors import ContextLengthExceeded, RedriveError
from apps.providers import errors
from apps.tasks.retry_policy import BUG_TRIES

CHAT, EMBEDDINGS = "chat_completion", "embeddings"
TRIES = 4  # of what is transient: one, and three retries


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it was sent. Prices: nano-USD a token."""

    provider: str
    model: str
    input_nusd: int
    output_nusd: int

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


OPENAI = Upstream("openai", "gpt-4o-mini", 150, 600)
ANTHROPIC = Upstream("anthropic", "claude-3-5-haiku-latest", 800, 4000)
VLLM = Upstream("vllm", "llama-3.1-8b-instruct", 0, 0)
VECTORS = Upstream("openai", "text-embedding-3-small", 20, 0)
WORKING = {CHAT: (OPENAI, OPENAI, ANTHROPIC, VLLM), EMBEDDINGS: (VECTORS,)}


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. share: of the failures. hours: when it happens, as hours before now. seconds: of an attempt.

    waits: its attempts before the last were told to wait, and are not charged. long: needs a long prompt.
    """

    share: float
    kind: str
    upstream: Upstream
    error: Callable[[Random], Exception]
    tries: int
    hours: tuple[float, float]
    seconds: tuple[float, float]
    waits: bool = False
    long: bool = False


def _refused(error: RedriveError, status: int) -> Exception:
    error.upstream_status = status
    return error


def _rate_limited(rng: Random) -> Exception:
    words = (
        f"Rate limit reached for gpt-4o-mini in organization org-{rng.getrandbits(96):024x} on tokens per min (TPM): "
        f"Limit 200000, Used {rng.randint(195_000, 199_999)}, Requested {rng.randint(1000, 9000)}. "
        f"Please try again in {rng.uniform(0.5, 3):.3f}s."
    )
    return _refused(errors.UpstreamRateLimited(words, retry_after=2.0), 429)


def _overloaded(rng: Random) -> Exception:
    return _refused(errors.UpstreamBroken(f"Overloaded (request id: req_{rng.getrandbits(88):022x})"), 529)


def _unreachable(rng: Random) -> Exception:
    address = f"('10.0.3.{rng.randint(11, 14)}', 8000)"
    return errors.UpstreamUnreachable(f"Cannot connect to host vllm.internal:8000 [Connect call failed {address}]")


def _out_of_memory(rng: Random) -> Exception:
    words = (
        f"CUDA out of memory. Tried to allocate {rng.randint(1024, 9216)} MiB. GPU 0 has a total capacity of 79.15 GiB "
        f"of which {rng.randint(1000, 1023)} MiB is free."
    )
    return _refused(errors.UpstreamBroken(words), 500)


def _too_long(rng: Random) -> Exception:
    used = rng.randint(8400, 9900)
    words = f"This model's maximum context length is 8192 tokens. However, your messages resulted in {used} tokens."
    return _refused(ContextLengthExceeded(words, details={"tokens_used": used, "max_tokens": 8192}), 400)


def _refused_key(_: Random) -> Exception:
    return _refused(errors.UpstreamCredentials(), 401)


def _timed_out(_: Random) -> Exception:
    return errors.UpstreamTimeout()


def _bug(_: Random) -> Exception:
    try:
        _total_of({"prompt_tokens": 412, "completion_tokens": 0})
    except KeyError as error:
        return error
    raise AssertionError("that key is missing")


def _total_of(usage: dict[str, Any]) -> int:
    return int(usage["total_tokens"])


OUTAGE = (4.4, 5.3)
RATE_LIMITED = Cause(0.18, CHAT, OPENAI, _rate_limited, TRIES, (0.05, 10.0), (0.1, 0.6), waits=True)
OVERLOADED = Cause(0.12, CHAT, ANTHROPIC, _overloaded, TRIES, (17.0, 18.0), (0.3, 2.0))
OUT_OF_MEMORY = Cause(0.09, CHAT, VLLM, _out_of_memory, TRIES, (8.0, 12.0), (2.0, 9.0))
TOO_LONG = Cause(0.08, CHAT, VLLM, _too_long, 1, (0.1, 23.0), (0.1, 0.5), long=True)
REFUSED_KEY = Cause(0.07, EMBEDDINGS, VECTORS, _refused_key, 1, (0.02, 1.7), (0.1, 0.4))
CAUSES = (
    Cause(0.34, CHAT, VLLM, _unreachable, TRIES, OUTAGE, (0.01, 5.0)),
    RATE_LIMITED,
    OVERLOADED,
    OUT_OF_MEMORY,
    Cause(0.08, CHAT, ANTHROPIC, _timed_out, TRIES, (0.2, 22.0), (55.0, 60.0)),
    TOO_LONG,
    REFUSED_KEY,
    Cause(0.04, CHAT, OPENAI, _bug, BUG_TRIES, (0.3, 9.0), (1.0, 4.0)),
)
