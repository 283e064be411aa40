"""/livez, /readyz and /metrics."""

import hmac
import ipaddress

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from apps.core import errors, health, json_codec, request_context


async def livez(request: HttpRequest) -> HttpResponse:
    """200 while the process turns."""
    return _json({"status": "ok"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """200 with status `ok`, or `degraded` where only checks fail that are not vital; else 503. It names each check."""
    status, checks = await health.run()
    return _json({"status": status, "checks": checks}, status=503 if status == health.UNAVAILABLE else 200)


async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text, for this machine or for the bearer of REDRIVE_METRICS_TOKEN."""
    token = settings.REDRIVE.metrics_token.get_secret_value()
    shown = request.META.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    allowed = hmac.compare_digest(shown.encode(), token.encode()) if token else False
    # Behind a proxy on this machine everybody comes from the loopback.
    proxied = "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META
    if not allowed and (token or proxied or not _is_loopback(request_context.current().address)):
        raise errors.PermissionDenied("Metrics are for this machine, or for the bearer of REDRIVE_METRICS_TOKEN.")
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _json(value: object, status: int = 200) -> HttpResponse:
    return HttpResponse(json_codec.dumps(value), status=status, content_type="application/json")
