"""Secrets at rest: a ring of keys, and the command that moves everything to the first one."""

from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection

from apps.core import config_version, crypto
from apps.core.crypto import UndecipherableError, decrypt, encrypt, rotate
from apps.providers.models import Provider

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def use(settings: Any) -> Any:
    """Use these keys: `use(NEW, OLD)`."""

    def put(*keys: str) -> None:
        settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": list(keys)})

    return put


def stored(column: str = "api_key") -> str:
    """What the one provider's row holds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM providers_provider")
        value: str = cursor.fetchone()[0]
        return value


@pytest.mark.parametrize("text", ["sk-secret", "", "日本\n\x00", "x" * 10_000])
def test_a_text_comes_back(text: str) -> None:
    assert decrypt(encrypt(text)) == text
    assert not text or text not in encrypt(text)


def test_the_same_text_is_never_the_same_token() -> None:
    assert encrypt("x") != encrypt("x")
    assert encrypt("") == ""


def test_the_first_key_encrypts_and_every_key_decrypts(use: Any) -> None:
    use(OLD)
    token = encrypt("secret")
    use(NEW, OLD)
    assert decrypt(token) == "secret"
    newer = encrypt("secret")
    use(NEW)
    assert decrypt(newer) == "secret"
    with pytest.raises(UndecipherableError):
        decrypt(token)


def test_a_rotated_token_opens_with_the_first_key_alone(use: Any) -> None:
    use(OLD)
    token = encrypt("secret")
    use(NEW, OLD)
    rotated = rotate(token)
    use(NEW)
    assert decrypt(rotated) == "secret"
    with pytest.raises(UndecipherableError):
        rotate(token)


@pytest.mark.parametrize("token", ["x", "gAAAAA", "日本", " "])
def test_what_is_no_token_cannot_be_opened(token: str) -> None:
    with pytest.raises(UndecipherableError):
        decrypt(token)


@pytest.mark.parametrize("keys", [(), ("short",), ("x" * 44,), (OLD, "bad")])
def test_an_unusable_ring_says_which_variable_is_wrong(use: Any, keys: tuple[str, ...]) -> None:
    use(*keys)
    with pytest.raises(ImproperlyConfigured, match="REDRIVE_ENCRYPTION_KEYS"):
        encrypt("x")


@pytest.mark.django_db
def test_a_secret_is_a_token_in_the_database_and_plain_in_python() -> None:
    provider = Provider.objects.create(name="p", base_url="http://x/v1", api_key="sk-plain", headers="X: y")
    assert "sk-plain" not in stored()
    assert decrypt(stored()) == "sk-plain"
    provider.refresh_from_db()
    assert (provider.api_key, provider.headers) == ("sk-plain", "X: y")
    Provider.objects.update(api_key="sk-other")
    assert decrypt(stored()) == "sk-other"


@pytest.mark.django_db
def test_rotation_moves_every_secret_to_the_first_key(use: Any) -> None:
    use(OLD)
    Provider.objects.create(name="p", base_url="http://x/v1", api_key="sk-one", headers="X: y")
    use(NEW, OLD)
    out = StringIO()
    call_command("rotate_encryption", stdout=out)
    assert "2 secrets" in out.getvalue()
    use(NEW)
    provider = Provider.objects.get()
    assert (provider.api_key, provider.headers) == ("sk-one", "X: y")


@pytest.mark.django_db
def test_rotation_leaves_empty_secrets_empty(use: Any) -> None:
    use(NEW)
    Provider.objects.create(name="p", base_url="http://x/v1")
    out = StringIO()
    call_command("rotate_encryption", stdout=out)
    assert "0 secrets" in out.getvalue()
    assert stored() == ""


@pytest.mark.django_db
def test_rotation_says_where_a_secret_cannot_be_opened_and_changes_nothing_there(use: Any) -> None:
    use(OLD)
    Provider.objects.create(name="lost", base_url="http://x/v1", api_key="sk-one")
    before = stored()
    use(NEW)
    with pytest.raises(CommandError, match="providers_provider.api_key"):
        call_command("rotate_encryption", stdout=StringIO())
    assert stored() == before


@pytest.mark.django_db
def test_rotation_raises_the_version_so_that_processes_read_again(use: Any) -> None:
    Provider.objects.create(name="p", base_url="http://x/v1", api_key="sk-one")
    before = config_version.read()
    call_command("rotate_encryption", stdout=StringIO())
    assert config_version.read() > before
    assert crypto.ring() is crypto.ring()
