"""Signatures, verified by others' libraries and not by our own code."""

import base64
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from apps.webhooks import signing

BODY = b'{"id":"evt_1","object":"event","type":"task.succeeded","created_at":1700000000,"data":{"task_id":"task_1"}}'


def signed(*keys: str, at: float | None = None) -> dict[str, str]:
    return dict(signing.headers("evt_1", BODY, at=int(at or time.time()), keys=keys))


def test_a_secret_is_256_random_bits_in_base64() -> None:
    secret = signing.new_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret[6:], validate=True)) == 32
    assert secret != signing.new_secret()


def test_the_reference_library_verifies_it() -> None:
    secret = signing.new_secret()
    assert Webhook(secret).verify(BODY, signed(secret))["id"] == "evt_1"


def test_the_openai_client_unwraps_it() -> None:
    secret = signing.new_secret()
    client = OpenAI(api_key="x", webhook_secret=secret)
    assert client.webhooks.unwrap(BODY.decode(), signed(secret)).id == "evt_1"


def test_while_a_secret_rotates_holders_of_either_verify_it() -> None:
    old, new, other = signing.new_secret(), signing.new_secret(), signing.new_secret()
    headers = signed(new, old)
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers)
        assert OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(BODY.decode(), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers)
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="x", webhook_secret=other).webhooks.unwrap(BODY.decode(), headers)


def test_what_was_changed_on_the_way_or_is_old_is_refused() -> None:
    secret = signing.new_secret()
    headers = signed(secret)
    for changed in ({**headers, "webhook-id": "evt_2"}, {**headers, "webhook-timestamp": str(int(time.time()) + 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY, changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, signed(secret, at=time.time() - 3600))
