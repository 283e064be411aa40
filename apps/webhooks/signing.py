"""Signs webhooks as the Standard Webhooks specification says (standardwebhooks.com, version 1)."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
BYTES = 32


def new_secret() -> str:
    """`whsec_` and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()


def headers(event_id: str, body: bytes, *, at: int, keys: Sequence[str]) -> Mapping[str, str]:
    """The three headers of one delivery, a signature of each secret. at: unix seconds, the receiver's guard
    against replays."""
    content = b".".join((event_id.encode(), str(at).encode(), body))
    signatures = (hmac.digest(base64.b64decode(key.removeprefix(PREFIX)), content, hashlib.sha256) for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures),
    }
