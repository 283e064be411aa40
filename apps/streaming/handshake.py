"""Reads a websocket's handshake: who asks, with which key, from which site; and refuses it with a plain HTTP answer."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from apps.access import way_in
from apps.core import error_payload, errors, json_codec, request_context
from apps.core.request_context import Scope, Send

SUBPROTOCOL = "redrive.v1"
KEY_PREFIX = "redrive.auth."


@dataclass(frozen=True, slots=True)
class Handshake:
    """authorization: the value of the header, or of the subprotocol that stands for it; None: connection_init comes."""

    authorization: str | None
    subprotocol: str | None
    end_user: str


def read(scope: Scope, allowed_origins: list[str]) -> Handshake:
    """What a handshake says. Raises PermissionDenied (another site's page), InvalidRequest."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value)
    _check_origin([value.decode("latin-1") for value in headers.get(b"origin", ())], headers, allowed_origins)
    offered = scope.get("subprotocols") or []
    if offered and SUBPROTOCOL not in offered:
        raise errors.InvalidRequest(f"Offer the subprotocol `{SUBPROTOCOL}`.", param="Sec-WebSocket-Protocol")
    authorization = next((value.decode("latin-1") for value in headers.get(b"authorization", ())), None)
    if authorization is None:
        keys = [name.removeprefix(KEY_PREFIX) for name in offered if name.startswith(KEY_PREFIX)]
        authorization = f"Bearer {keys[0]}" if keys else None
    end_user = way_in.end_user(headers.get(b"x-user-id", [b""])[0].decode("latin-1"))
    return Handshake(authorization, SUBPROTOCOL if offered else None, end_user)


async def refuse(scope: Scope, send: Send, error: errors.RedriveError) -> None:
    """Answer a handshake with the one error body, or with 403 where the server knows no other refusal."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json_codec.dumps(error_payload.payload(error, request_context.current().request_id))
    found = {"content-type": "application/json", **error_payload.headers(error)}
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in found.items()]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _check_origin(origins: list[str], headers: dict[bytes, list[bytes]], allowed: list[str]) -> None:
    """Browsers send Origin, and pages cannot change it; other clients send none and hold their key anyway."""
    host = headers.get(b"host", [b""])[0].decode("latin-1").lower()
    for origin in origins:
        lowered = origin.lower()
        own = lowered.startswith(("http://", "https://")) and _netloc(lowered) == host
        if not own and lowered.rstrip("/") not in {site.lower().rstrip("/") for site in allowed}:
            raise errors.PermissionDenied(
                "Pages of this site may not open websockets here: see REDRIVE_ALLOWED_ORIGINS.", param="Origin"
            )


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
