"""What the letters of the benchmark look like: few groups hold most of them, and most groups hold few."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

DAYS = 7.0
GIANTS = (0.15, 0.12, 0.11, 0.10)  # shares of all letters that the four largest groups hold
RARE, COMMON = "flux_capacitor", "retried"  # words of 3 groups, and of most
RARE_CODE = "content_filtered"  # of 10 small groups
TINY = "attic"  # a project that one group has hit, long ago
# Project -> its API keys, by number.
PROJECTS = {
    "storefront": range(20), "billing": range(20, 30), "search": range(30, 36), "mobile": range(36, 39),
    "research": range(39, 40), TINY: range(40, 41),
}  # fmt: skip
UPSTREAMS = (
    "openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet", "vllm/llama-70b", "vllm/qwen-32b",
    "azure/gpt-4o", "mistral/large", "local/tiny",
)  # fmt: skip
# kind, code, status, words; {n} makes groups of one cause differ, as frames and models do
CAUSES = (
    ("chat_completion", "model_error", 503, "Upstream <n>: no healthy upstream for pool {n}; retried"),
    ("chat_completion", "rate_limit_exceeded", 429, "Rate limit reached for tier {n}: try again in <n>s; retried"),
    ("chat_completion", "timeout", 504, "No byte from shard {n} within <n>s; retried"),
    ("embeddings", "model_error", 500, "CUDA out of memory on worker {n} at <hex>; retried"),
    ("chat_completion", "validation_error", 400, "messages.{n}.content: Input should be a valid string"),
    ("chat_completion", "context_length_exceeded", 400, "This request needs <n> tokens, model {n} has <n>"),
    ("embeddings", "upstream_connection", 502, "Cannot connect to host <address> (rack {n}): Connection refused"),
    ("webhook_delivery", "webhook_failed", 502, "<url> of customer {n} answered 502; retried"),
)
QUEUES = {
    "chat_completion": ("default", "low", "high"),
    "embeddings": ("low", "default"),
    "webhook_delivery": ("webhooks",),
}


@dataclass(frozen=True, slots=True)
class Group:
    """A group to be loaded. size: letters. since, until: days ago. first_key, keys: API keys that it hits."""

    fingerprint: str
    size: int
    kind: str
    queue: str
    upstream: str
    code: str
    status: int
    message: str
    since: float
    until: float
    first_key: int
    keys: int


COLUMNS = Group.__slots__


def groups(letters: int, count: int) -> list[Group]:
    """So many groups with so many letters in all, the largest first; the same each time."""
    dice = random.Random(4)
    return [_group(dice, number, size) for number, size in enumerate(_sizes(letters, count))]


def rows(found: list[Group]) -> Iterator[tuple[Any, ...]]:
    """As COPY takes them."""
    yield from map(astuple, found)


def _sizes(letters: int, count: int) -> list[int]:
    giants = [round(letters * share) for share in GIANTS]
    rest = letters - sum(giants)
    weights = [place**-1.1 for place in range(1, count - len(giants) + 1)]
    scale = (rest - len(weights)) / sum(weights)
    sizes = [1 + int(weight * scale) for weight in weights]
    sizes[0] += rest - sum(sizes)
    return giants + sizes


def _group(dice: random.Random, number: int, size: int) -> Group:
    kind, code, status, words = CAUSES[number % len(CAUSES)]
    queue = QUEUES[kind][number // len(CAUSES) % len(QUEUES[kind])]
    upstream = "" if kind == "webhook_delivery" else UPSTREAMS[number // 3 % len(UPSTREAMS)]
    since = DAYS if number < len(GIANTS) else dice.uniform(0.05, DAYS)
    until = 0.0 if number < len(GIANTS) else dice.uniform(0.0, since) * dice.random()
    first_key = dice.randrange(40)
    keys = min(40, 1 + int(size**0.5))
    message = words.format(n=number)
    if number % 1700 == 400:  # three small groups
        message = f"{RARE} drained in stage {number}"
    if number % 500 == 450:
        kind, code, status = "chat_completion", RARE_CODE, 400
    if number == 700:
        since, until, first_key, keys = DAYS, DAYS - 0.5, 40, 1
    fingerprint = hashlib.sha256(f"bench {number}".encode()).hexdigest()
    return Group(fingerprint, size, kind, queue, upstream, code, status, message, since, until, first_key, keys)
