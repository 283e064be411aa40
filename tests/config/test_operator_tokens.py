"""Operators' tokens: made once, stored as digests, theirs alone, and of no use once their person is gone."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access import operator_tokens
from apps.access.models import AuditEntry, OperatorToken
from apps.core import pruning
from apps.core.errors import Conflict, InvalidRequest, PermissionDenied
from tests.dead_letters.test_triage import person
from tests.operators import post, refusal
from tests.time import age

pytestmark = pytest.mark.django_db
WORKERS, QUEUES = "/ops/api/workers/", "/ops/api/queues/"
NONE_SUCH = "rdo_" + "0" * 64


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:access_operatortoken_{name}", args=args)


def script(secret: str, scheme: str = "Token") -> Client:
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"{scheme} {secret}"})


def days_of(token: OperatorToken) -> int:
    return round((token.expiry - token.created).total_seconds() / 86_400)


def printed(*args: str) -> str:
    """What the command leaves on standard output."""
    out = StringIO()
    call_command("create_operator_token", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_a_token_has_the_rights_of_its_person_and_needs_no_csrf_token(django_user_model: Any) -> None:
    operator = person(django_user_model, "view_queuestate", "pause_queue")
    _, secret = operator_tokens.create(user=operator)
    client = script(secret)
    assert client.get(QUEUES).status_code == 200
    refusal(client.get(WORKERS), 403, "permission_denied")
    assert post(client, f"{QUEUES}low/pause/", reason="receiver is down").json()["paused_by"] == operator.username
    operator.user_permissions.clear()
    refusal(client.get(QUEUES), 403, "permission_denied")


def test_only_a_digest_is_stored(django_user_model: Any) -> None:
    token, secret = operator_tokens.create(user=person(django_user_model), name="cron")
    with connection.cursor() as cursor:
        cursor.execute("SELECT t::text FROM access_operatortoken t UNION ALL SELECT a::text FROM access_auditentry a")
        stored = "".join(row[0] for row in cursor.fetchall())
    assert len(secret) == 4 + 64
    assert secret not in stored
    assert secret[20:] not in stored
    assert len(token.digest) == 128
    assert AuditEntry.objects.get().after["digest"] == "(set)"


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}])
def test_the_token_of_somebody_who_has_left_does_not_work(django_user_model: Any, change: Any) -> None:
    operator = person(django_user_model, "view_queuestate")
    _, secret = operator_tokens.create(user=operator)
    django_user_model.objects.filter(pk=operator.pk).update(**change)
    error = refusal(script(secret).get(QUEUES), 401, "invalid_api_key")
    assert "Authorization: Token" in error["message"]


def test_a_token_that_has_expired_does_not_work_and_is_deleted_by_the_clock_alone(django_user_model: Any) -> None:
    operator = person(django_user_model, "view_queuestate")
    token, secret = operator_tokens.create(user=operator, days=30)
    fresh, _ = operator_tokens.create(user=operator)
    age(token, days=31)
    refusal(script(secret).get(QUEUES), 401, "invalid_api_key")
    assert OperatorToken.objects.count() == 2
    assert pruning.tick() == 1
    assert OperatorToken.objects.get() == fresh


@pytest.mark.parametrize(
    "header",
    [
        "", "Token", "Token a b", f"Token {NONE_SUCH}", "Token \0", "Token \xff", f"Bearer {NONE_SUCH}", "Basic YTpi",
        f"Token {NONE_SUCH.upper()}", "Token " + "x" * 5000,
    ],
)  # fmt: skip
def test_who_shows_nothing_that_works_is_told_how_to_log_in(header: str) -> None:
    response = Client(headers={"Authorization": header} if header else {}).get(QUEUES)
    error = refusal(response, 401, "invalid_api_key")
    assert "Log in at /admin/ first, or send `Authorization: Token" in error["message"]
    assert error["type"] == "authentication_error"
    assert response["WWW-Authenticate"] == 'Token realm="redrive"'


def test_the_header_counts_more_than_the_session(admin_client: Client) -> None:
    refusal(admin_client.get(QUEUES, headers={"Authorization": f"Token {NONE_SUCH}"}), 401, "invalid_api_key")


def test_a_token_costs_one_query(django_user_model: Any) -> None:
    _, secret = operator_tokens.create(user=person(django_user_model))
    with CaptureQueriesContext(connection) as seen:
        script(secret).get("/ops/api/")
    assert len(seen) == 1


def test_the_command_prints_the_token_once_alone_as_the_last_line(django_user_model: Any) -> None:
    operator = person(django_user_model, "view_queuestate")
    secret = printed(operator.username, "--days", "7", "--name", "cron").splitlines()[-1]
    assert script(secret).get(QUEUES).status_code == 200
    token = OperatorToken.objects.get()
    assert (token.name, days_of(token)) == ("cron", 7)
    assert AuditEntry.objects.get().actor == "command line"


def test_the_command_makes_none_for_nobody_or_for_no_time(django_user_model: Any) -> None:
    guest = django_user_model.objects.create_user("guest")
    operator = person(django_user_model)
    for args, words in (
        (["nobody"], "no user"),
        ([guest.username], "staff"),
        ([operator.username, "--days", "0"], "days"),
        ([operator.username, "--days", "99999"], "days"),
        ([operator.username, "--name", "x" * 65], "name"),
    ):
        with pytest.raises(CommandError, match=words):
            printed(*args)
    assert not OperatorToken.objects.exists()


def test_nobody_makes_a_token_of_somebody_else_or_too_many(django_user_model: Any, admin_user: Any) -> None:
    operator = person(django_user_model)
    with pytest.raises(PermissionDenied):
        operator_tokens.create(user=operator, actor=admin_user)
    for _ in range(20):
        operator_tokens.create(user=operator, actor=operator)
    with pytest.raises(Conflict, match="20 tokens"):
        operator_tokens.create(user=operator, actor=operator)
    with pytest.raises(InvalidRequest):
        operator_tokens.create(user=admin_user, days=-1)


def test_an_operator_makes_sees_and_revokes_the_own_tokens(client: Client, django_user_model: Any) -> None:
    operator, other = person(django_user_model, "view_queuestate"), person(django_user_model)
    foreign, _ = operator_tokens.create(user=other, name="of another")
    client.force_login(operator)
    response = client.post(page("add"), {"name": "cron", "days": "30", "audit_reason": "ticket 7"})
    secret = response.context["secret"]
    assert (response.status_code, "no-store" in response["Cache-Control"]) == (200, True)
    assert secret in response.content.decode()
    assert "/ops/api/groups/" in response.content.decode()
    assert script(secret).get(QUEUES).status_code == 200
    token = OperatorToken.objects.get(name="cron")
    assert (token.user, days_of(token)) == (operator, 30)
    for url in (page("changelist"), page("change", token.pk), page("delete", token.pk)):
        html = client.get(url).content.decode()
        assert "cron" in html
        assert not any(hidden in html for hidden in (secret, token.digest, "of another"))
    for name in ("change", "delete"):
        assert client.get(page(name, foreign.pk)).status_code == 302
    client.post(page("delete", foreign.pk), {"post": "yes"})
    client.post(page("delete", token.pk), {"post": "yes"})
    assert OperatorToken.objects.get() == foreign
    refusal(script(secret).get(QUEUES), 401, "invalid_api_key")
    entries = AuditEntry.objects.filter(actor=operator.username).order_by("pk")
    assert [(entry.action, entry.object_type) for entry in entries] == [
        ("create", "access.operatortoken"), ("delete", "access.operatortoken"),
    ]  # fmt: skip
    assert token.digest not in str(list(entries.values()))


def test_a_superuser_sees_and_revokes_all_and_makes_only_the_own(
    admin_client: Client, admin_user: Any, django_user_model: Any
) -> None:
    token, _ = operator_tokens.create(user=person(django_user_model), name="of another")
    assert "of another" in admin_client.get(page("changelist")).content.decode()
    admin_client.post(page("add"), {"name": "mine", "days": "1", "user": str(token.user_id)})
    assert OperatorToken.objects.get(name="mine").user == admin_user
    admin_client.post(page("delete", token.pk), {"post": "yes"})
    assert not OperatorToken.objects.filter(pk=token.pk).exists()


def test_the_twenty_first_token_is_refused_in_words(admin_client: Client, admin_user: Any) -> None:
    for _ in range(20):
        operator_tokens.create(user=admin_user)
    response = admin_client.post(page("add"), {"name": "more", "days": "1"}, follow=True)
    assert "has 20 tokens" in response.content.decode()
    assert OperatorToken.objects.count() == 20


@pytest.mark.parametrize("days", ["0", "3651", "x", ""])
def test_a_token_for_no_time_is_refused_by_the_form(admin_client: Client, days: str) -> None:
    assert admin_client.post(page("add"), {"name": "n", "days": days}).status_code == 200
    assert not OperatorToken.objects.exists()


def test_a_person_may_ask_six_hundred_times_a_minute_whatever_the_token(django_user_model: Any) -> None:
    operator = person(django_user_model, "view_workerpresence")
    scripts = [script(operator_tokens.create(user=operator)[1]) for _ in range(2)]
    answers = [scripts[number % 2].get("/ops/api/").status_code for number in range(600)]
    assert set(answers) == {200}
    response = scripts[0].get(WORKERS)
    error = refusal(response, 429, "rate_limit_exceeded")
    assert error["type"] == "rate_limit_error"
    assert 0 < int(response["Retry-After"]) <= 60
    _, other = operator_tokens.create(user=person(django_user_model, "view_workerpresence"))
    assert script(other).get(WORKERS).status_code == 200


def test_an_address_is_told_to_log_in_sixty_times_a_minute(django_user_model: Any) -> None:
    _, secret = operator_tokens.create(user=person(django_user_model, "view_workerpresence"))
    stranger = Client(REMOTE_ADDR="192.0.2.7")
    guesser = Client(REMOTE_ADDR="192.0.2.7", headers={"Authorization": f"Token {NONE_SUCH}"})
    assert {(stranger if number % 2 else guesser).get(WORKERS).status_code for number in range(60)} == {401}
    response = guesser.get(WORKERS)
    refusal(response, 429, "rate_limit_exceeded")
    assert 0 < int(response["Retry-After"]) <= 60
    # Who shows a token that works is no stranger, though at the same address; nor is another address one of these.
    assert Client(REMOTE_ADDR="192.0.2.7", headers={"Authorization": f"Token {secret}"}).get(WORKERS).status_code == 200
    assert Client(REMOTE_ADDR="192.0.2.8").get(WORKERS).status_code == 401
