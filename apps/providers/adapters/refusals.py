"""Maps a refusing upstream's status and body to our error, with a message that is safe to show."""

import re
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from apps.core.errors import ContentFiltered, ContextLengthExceeded, RedriveError
from apps.providers import errors

UNSAID_RETRY_AFTER = 1.0  # seconds, where an upstream that limits us does not say
PASSED_ON = frozenset({400, 404, 409, 413, 422})
CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "content_filtered"}
)
_CONTEXT_WORDS = re.compile(r"maximum context length|context (?:window|size|length)", re.I)
_SECRETS = re.compile(
    r"\b(?:sk|rk|pk|key|rd|Bearer)[-_ ][A-Za-z0-9*._-]{6,}"  # keys by their prefix
    r"|\b(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_-]{30,}"  # long strings that are no words
    r"|https?://\S+"
    r"|(?<![\w/])/[\w.-]+/\S+"  # absolute paths
)
_NUMBERS = re.compile(r"\b\d{3,7}\b")


def refusal(status: int, body: Any, headers: Mapping[str, str], *, secrets: Collection[str] = ()) -> RedriveError:
    """The error for an upstream that answered `status` with `body` (parsed JSON, or None).

    secrets: what was sent to the upstream and must not come back from it, whatever its shape.
    """
    error = _kind(status, _inner(body), headers, secrets)
    error.upstream_status = status
    return error


def _kind(status: int, inner: dict[str, Any], headers: Mapping[str, str], secrets: Collection[str]) -> RedriveError:
    codes = {str(inner.get("code")), str(inner.get("type"))}
    code = safe(str(inner.get("code") or inner.get("type") or ""), secrets)[:64]
    message = safe(inner.get("message"), secrets)
    # llama.cpp answers 500 for it; others by words only.
    if codes & CONTEXT_CODES or (status in PASSED_ON and _CONTEXT_WORDS.search(message)):
        return _context_error(message, inner)
    if codes & FILTER_CODES:
        return ContentFiltered(message, details={"reason": code})
    if status in PASSED_ON:
        return errors.UpstreamRefused(
            message or "The model's provider refused the request.",
            status=status,
            param=safe(inner.get("param"), secrets)[:200] or None,
            details={"upstream_code": code} if code else None,
        )
    if status in {401, 402, 403}:
        return errors.UpstreamCredentials()
    if status == 429:
        wait = retry_after(headers)
        return errors.UpstreamRateLimited(retry_after=UNSAID_RETRY_AFTER if wait is None else wait)
    if status in {408, 504}:
        return errors.UpstreamTimeout()
    return errors.UpstreamBroken(retry_after=retry_after(headers) if status == 503 else None)


def _inner(body: Any) -> dict[str, Any]:
    """OpenAI's `{"error": {...}}`, `{"error": "text"}`, or vLLM's flat `{"object": "error", "message": ...}`."""
    if not isinstance(body, dict):
        return {}
    inner = body.get("error", body)
    return inner if isinstance(inner, dict) else {"message": inner}


def safe(message: Any, secrets: Collection[str] = ()) -> str:
    """An upstream's words without secrets, anything that looks like a key, addresses and paths; <= 500 characters."""
    if not isinstance(message, str):
        return ""
    for secret in secrets:
        message = message.replace(secret, "[removed]")
    cleaned = _SECRETS.sub("[removed]", message).encode("utf-8", "replace").decode()
    return "".join(char for char in cleaned if char.isprintable() or char == "\n")[:500]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of retry-after-ms or Retry-After (RFC 9110: seconds or a date), None where neither says."""
    for name, unit in (("retry-after-ms", 1000.0), ("Retry-After", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, min(float(value) / unit, 86_400.0))
        except ValueError:
            pass
        try:
            return max(0.0, min(parsedate_to_datetime(value).timestamp() - time.time(), 86_400.0))
        except (ValueError, TypeError):
            continue
    return None


def _context_error(message: str, inner: dict[str, Any]) -> ContextLengthExceeded:
    used, most = _tokens(inner.get("n_prompt_tokens")), _tokens(inner.get("n_ctx"))  # llama.cpp's names
    numbers = [int(number) for number in _NUMBERS.findall(message)]
    if most is None and numbers:
        most = numbers[0]
    if used is None and len(numbers) > 1:
        used = numbers[1]
    return ContextLengthExceeded(message, details={"tokens_used": used, "max_tokens": most})


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
