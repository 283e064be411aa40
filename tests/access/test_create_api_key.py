"""`manage.py create_api_key`."""

from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.access import keys
from apps.access.authentication import find
from apps.access.models import ApiKey, AuditEntry, Limit, Project
from tests.races import together

pytestmark = pytest.mark.django_db


def create(*args: str) -> tuple[str, str]:
    """(stdout, stderr) of the command."""
    out, err = StringIO(), StringIO()
    call_command("create_api_key", *args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_last_line_of_stdout_is_the_key_alone() -> None:
    out, err = create("billing", "--project", "invoices")
    secret = out.splitlines()[-1]
    caller = find(keys.digest(secret))
    assert caller is not None
    assert secret not in err
    assert ApiKey.objects.get(pk=caller.key_id).project.name == "invoices"


def test_a_project_is_made_once_and_used_again() -> None:
    create("one", "--project", "invoices")
    create("two", "--project", "invoices")
    assert Project.objects.get(name="invoices").api_keys.count() == 2
    assert AuditEntry.objects.filter(object_type="access.project").count() == 1


def test_limits_are_those_that_were_given() -> None:
    create("x", "--rpm", "600", "--tpm", "9", "--concurrency", "4", "--budget", "12.50", "--models", "gpt-*, claude")
    limit = Limit.objects.get()
    assert (limit.requests_per_minute, limit.tokens_per_minute, limit.concurrency) == (600, 9, 4)
    assert limit.monthly_budget_usd == Decimal("12.5")
    assert ApiKey.objects.get().allowed_models == ["gpt-*", "claude"]


@pytest.mark.parametrize(("option", "expected"), [((), 100), (("--strict",), 10)])
def test_the_usual_and_the_strict_limit(option: tuple[str, ...], expected: int) -> None:
    create("x", *option)
    assert Limit.objects.get().requests_per_minute == expected


def test_a_budget_of_nothing_is_a_budget() -> None:
    create("x", "--budget", "0")
    assert Limit.objects.get().monthly_budget_usd == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--rpm", "0"), "requests_per_minute"),
        (("--rpm", "-5"), "requests_per_minute"),
        (("--rpm", "99999999999"), "requests_per_minute"),
        (("--tpm", "0"), "tokens_per_minute"),
        (("--concurrency", "0"), "concurrency"),
        (("--budget=-1",), "budget"),
        (("--budget", "much"), "--budget"),
        (("--budget", "NaN"), "--budget"),
        (("--budget", "Infinity"), "--budget"),
        (("--budget", "1e20"), "--budget"),
        (("--budget", "99999999.99999"), "--budget"),
        (("--project", "../x"), "project"),
        (("--project", "p" * 65), "project"),
        (("--models", "m" * 129), "model"),
    ],
)
def test_what_cannot_be_is_refused_clearly_and_changes_nothing(options: tuple[str, ...], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        create("x", *options)
    assert not ApiKey.objects.exists()
    assert not Project.objects.exists()


@pytest.mark.parametrize("name", ["", "   ", "n" * 65])
def test_a_key_needs_a_name(name: str) -> None:
    with pytest.raises(CommandError, match="name"):
        create(name)


@pytest.mark.django_db(transaction=True)
def test_eight_commands_at_once_share_the_one_new_project() -> None:
    failures = [
        answer
        for answer in together(8, lambda n: create(f"key{n}", "--project", "new"))
        if isinstance(answer, Exception)
    ]
    assert failures == []
    assert Project.objects.get().api_keys.count() == 8
