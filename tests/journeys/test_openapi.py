"""The OpenAPI document: as it was last agreed on, and nothing that fits it, or nearly fits it, brings a 5xx.

After a change of the API that is meant: `REFRESH_OPENAPI=1 pytest tests/journeys/test_openapi.py -k snapshot`
writes tests/journeys/openapi.json anew; the difference belongs into the same commit.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.conf import settings
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings

from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys.wire import call
from tests.upstream import Upstream, ok, vectors

pytestmark = pytest.mark.django_db(transaction=True)
SNAPSHOT = Path(__file__).with_name("openapi.json")
EXAMPLES = 40


def document(gateway: Gateway) -> dict[str, Any]:
    reply = call(gateway.url, "GET", "/v1/openapi.json")
    assert reply.status == 200
    found: dict[str, Any] = reply.json()
    return found


def test_the_document_is_the_snapshot(gateway: Gateway) -> None:
    found = document(gateway)
    if os.environ.get("REFRESH_OPENAPI"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


def test_the_document_names_every_route_and_how_to_authenticate(gateway: Gateway) -> None:
    found = document(gateway)
    routes = {f"{method} {path}" for path, methods in found["paths"].items() for method in methods}
    assert routes >= {
        "post /v1/chat/completions",
        "post /v1/embeddings",
        "get /v1/models",
        "get /v1/models/{model}",
    }
    assert all(operation["security"] for methods in found["paths"].values() for operation in methods.values())
    [scheme] = found["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


@pytest.fixture
def fuzzed(transactional_db: None) -> Iterator[Gateway]:
    """A gateway for this test alone: keys that are made up count against the address of all tests."""
    served = Gateway({"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url})
    yield served
    served.stop()


@pytest.mark.parametrize("kind", ["fitting", "not fitting"])
@pytest.mark.parametrize(
    "operation", [("/v1/chat/completions", "POST"), ("/v1/embeddings", "POST"), ("/v1/models/{model}", "GET")]
)
def test_no_request_that_is_made_from_the_document_brings_a_5xx(
    kind: str, operation: tuple[str, str], fuzzed: Gateway, make_key: MakeKey, make_route: MakeRoute, upstream: Upstream
) -> None:
    path, method = operation
    headers = {"Authorization": f"Bearer {make_key()[1]}"}
    schema = schemathesis.openapi.from_dict(document(fuzzed))
    schema.config.update(base_url=fuzzed.url)
    mode = schemathesis.GenerationMode.POSITIVE if kind == "fitting" else schemathesis.GenerationMode.NEGATIVE
    cases = schema[path][method].as_strategy(generation_mode=mode)
    model = make_route()
    upstream.script(model, vectors() if "embeddings" in path else ok())
    seen: list[int] = []

    @given(case=cases)
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and kind == "fitting":
            case.body["model"] = model  # else nothing gets past the unknown model
        reply = case.call(headers={**headers, "Accept": "application/json"}, timeout=30)
        seen.append(reply.status_code)
        assert reply.status_code < 500, (case.body, reply.text)
        if reply.status_code >= 400:
            assert reply.json()["error"].keys() == {"message", "type", "param", "code", "request_id", "details"}

    ask()
    assert seen
    if kind == "fitting" and method == "POST":
        assert 200 in seen
