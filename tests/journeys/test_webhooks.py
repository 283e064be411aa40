"""Webhooks as a client sees them: a real gateway, a real worker, a real receiver, others' libraries to verify."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from openai import OpenAI
from standardwebhooks import Webhook

from apps.access.models import ApiKey
from apps.tasks.models import Task
from apps.tasks.verify import verify
from apps.webhooks import disabled, secrets
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import Reply, assert_error, eventually
from tests.receiver import HOST, Receiver, says
from tests.upstream import Upstream, status
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)
CHAT = "/v1/tasks/chat/completions"


@pytest.fixture
def worker(transactional_db: None) -> Iterator[Child]:
    """A worker that may call the receiver."""
    child = Child(
        {
            "REDRIVE_DATABASE_URL": database_url(),
            "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url,
            "REDRIVE_OUTBOUND_ALLOW": HOST,
        },
        "worker",
    )
    yield child
    child.stop()


@pytest.fixture
def key(transactional_db: None, make_key: MakeKey) -> tuple[ApiKey, str]:
    """A key, and the webhook secret of its project."""
    made, plain = make_key()
    made.plain = plain  # type: ignore[attr-defined]
    return made, secrets.create(project=made.project)[1]


@pytest.fixture
def client(gateway: Gateway, key: tuple[ApiKey, str]) -> Client:
    return Client(gateway.url, key[0].plain)  # type: ignore[attr-defined]


def post(client: Client, model: str, url: str, **more: Any) -> Reply:
    return client.call("POST", CHAT, payload={"model": model, "messages": HELLO, "callback_url": url, **more})


def tries(client: Client, task: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The deliveries of a task, newest first, once there are so many."""
    path = f"{task['links']['self']}/webhook_deliveries"

    def found() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = client.call("GET", path).json()["data"]
        return listed

    eventually(lambda: len(found()) >= count, 10)
    return found()


def test_a_client_is_told_of_the_end_and_can_have_it_told_again(
    worker: Child, client: Client, key: tuple[ApiKey, str], route: MakeRoute, upstream: Upstream, receiver: Receiver
) -> None:
    model, url = route(), receiver.url(says(200, b"thank you"))
    task = post(client, model, url, metadata={"order": "7"}).json()
    [first] = tries(client, task, 1)
    assert first.keys() == {
        "id", "object", "task_id", "event_id", "event_type", "attempt", "url", "created_at", "duration_ms",
        "status_code", "response", "error",
    }  # fmt: skip
    assert (first["status_code"], first["response"], first["error"]) == (200, "thank you", None)
    [request] = receiver.arrived(url)
    event = Webhook(key[1]).verify(request.body, dict(request.headers))
    assert (event["type"], event["id"]) == ("task.succeeded", first["event_id"])
    assert event["data"] == client.call("GET", task["links"]["self"]).json()
    assert event["data"]["metadata"] == {"order": "7"}
    unwrapped = OpenAI(api_key="x", webhook_secret=key[1]).webhooks.unwrap(request.body.decode(), dict(request.headers))
    assert unwrapped.id == event["id"]
    asked = client.call("POST", f"{task['links']['self']}/webhook_deliveries/redeliver")
    assert (asked.status, asked.json()["id"], asked.json()["type"]) == (202, event["id"], "task.succeeded")
    newest, oldest = tries(client, task, 2)
    assert oldest == first
    assert newest["event_id"] == first["event_id"]
    assert len({(one.headers["webhook-id"], one.body) for one in receiver.arrived(url)}) == 1
    path = f"{task['links']['self']}/webhook_deliveries"
    assert client.call("GET", f"{path}?limit=1").json()["has_more"]
    assert client.call("GET", f"{path}?after={newest['id']}").json()["data"] == [first]
    named = client.call("POST", f"{path}/redeliver", payload={"event_id": event["id"]})
    assert named.status == 202
    assert [one["task_id"] for one in client.call("GET", "/v1/tasks").json()["data"]] == [task["task_id"]]
    tries(client, task, 3)
    assert {invariant.name: count for invariant, count, _ in verify() if count} == {}


def test_a_task_that_dies_is_told_with_its_letter(
    worker: Child, client: Client, route: MakeRoute, upstream: Upstream, receiver: Receiver
) -> None:
    model, url = route(), receiver.url()
    upstream.script(model, status(400, {"error": {"message": "no such thing"}}))
    task = post(client, model, url).json()
    tries(client, task, 1)
    told = json.loads(receiver.arrived(url)[0].body)
    assert (told["type"], told["data"]["error"]["code"]) == ("task.dead", "model_error")
    assert told["data"]["dead_letter"]["state"] == "open"


REFUSED = [
    "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]:8000/", "http://2130706433/",
    "http://0x7f.1/", "http://localhost/", "ftp://hooks.example/", "http://u:p@hooks.example/", "nonsense", "",
    "http://hooks.example/" + "x" * 2048, "http://hooks.example/\0", 5,
]  # fmt: skip


def test_a_url_that_may_not_be_called_is_refused(client: Client, route: MakeRoute) -> None:
    model = route()
    for url in REFUSED:
        reply = post(client, model, url)  # type: ignore[arg-type]
        assert_error(reply, 400, "validation_error", param="callback_url")
    assert not Task.objects.exists()


def test_without_a_secret_and_for_a_disabled_url_nothing_is_accepted(
    client: Client, key: tuple[ApiKey, str], route: MakeRoute, receiver: Receiver
) -> None:
    model, url = route(), receiver.url()
    assert post(client, model, url).status == 202
    disabled.disable(key[0].project_id, url)
    assert_error(post(client, model, url), 400, "validation_error", param="callback_url")
    secrets.revoke(project=key[0].project)
    refused = post(client, model, receiver.url())
    assert_error(refused, 400, "validation_error", param="callback_url")
    assert "webhook_secret create" in refused.error["message"]


def test_the_deliveries_of_another_project_do_not_exist(
    client: Client, route: MakeRoute, gateway: Gateway, make_key: MakeKey, receiver: Receiver
) -> None:
    task = post(client, route(), receiver.url()).json()
    path = f"{task['links']['self']}/webhook_deliveries"
    stranger = Client(gateway.url, make_key()[1])
    assert_error(stranger.call("GET", path), 404, "not_found")
    assert_error(stranger.call("POST", f"{path}/redeliver"), 404, "not_found")
    assert client.call("GET", path).json()["data"] == []
    assert_error(client.call("POST", f"{path}/redeliver"), 404, "not_found")  # it has not ended
    for query in ("after=nonsense", "limit=0", "limit=101"):
        assert client.call("GET", f"{path}?{query}").status == 400
    for payload in ({"event_id": "evt_1"}, {"event_id": 5}, {"event": "x"}):
        assert client.call("POST", f"{path}/redeliver", payload=payload).status == 400
    assert_error(client.call("GET", "/v1/tasks/task_x/webhook_deliveries"), 404, "not_found")
