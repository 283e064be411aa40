"""`manage.py prepare --bootstrap`: makes what is missing, never takes back what an operator changed."""

import json
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

pytestmark = pytest.mark.django_db

MODELS = "smollm2-135m-instruct,gpt-4o-mini=smollm2-135m-instruct"


def bootstrap(**wanted):
    output = StringIO()
    call_command("prepare", "--bootstrap", stdin=StringIO(json.dumps(wanted)), stdout=output, stderr=StringIO())
    return json.loads(output.getvalue().splitlines()[-1])


def admins():
    return get_user_model().objects.filter(is_superuser=True)


def test_the_first_time_everything_is_made():
    provider = {"base_url": "http://127.0.0.1:5001/v1", "models": MODELS}
    answer = bootstrap(admin_password="generated one", wants_api_key=True, local_provider=provider)
    assert answer["admin_password_is_valid"] is True
    assert answer["api_key"]
    assert admins().get().username == "admin"


def test_nothing_asked_for_nothing_made():
    assert bootstrap() == {"admin_password_is_valid": False, "api_key": None}
    assert not admins().exists()


def test_a_changed_password_stays_and_is_reported():
    bootstrap(admin_password="generated one")
    admin = admins().get()
    admin.set_password("my own")
    admin.save()
    assert bootstrap(admin_password="generated one")["admin_password_is_valid"] is False
    assert admins().get().check_password("my own")


def test_an_administrator_of_another_name_is_enough():
    get_user_model().objects.create_superuser(username="alice", password="hers")
    assert bootstrap(admin_password="generated one")["admin_password_is_valid"] is False
    assert admins().get().username == "alice"


def test_a_closed_administrator_stays_closed():
    bootstrap(admin_password="generated one")
    admins().update(is_active=False)
    assert bootstrap(admin_password="generated one")["admin_password_is_valid"] is False
    assert not admins().get().is_active


def test_the_local_provider_follows_its_port():
    for port in (5001, 5002):
        bootstrap(local_provider={"base_url": f"http://127.0.0.1:{port}/v1", "models": MODELS})
