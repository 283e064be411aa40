"""Encrypts secrets at rest with a ring of keys: the first encrypts, all decrypt (Fernet, github.com/fernet/spec)."""

import functools
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models


class UndecipherableError(Exception):
    """No key of REDRIVE_ENCRYPTION_KEYS opens this value."""


@functools.cache
def _ring(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("REDRIVE_ENCRYPTION_KEYS is needed: one or more Fernet keys, comma separated")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ImproperlyConfigured("REDRIVE_ENCRYPTION_KEYS: each key is 32 bytes in url-safe base64") from None


def ring() -> MultiFernet:
    """The ring of the settings. Raises ImproperlyConfigured without a usable key."""
    return _ring(tuple(settings.REDRIVE.encryption_keys))


def encrypt(text: str) -> str:
    """The text as a Fernet token under the first key; an empty text stays empty."""
    return ring().encrypt(text.encode()).decode() if text else ""


def decrypt(token: str) -> str:
    """The text of a token. Raises UndecipherableError."""
    try:
        return ring().decrypt(token.encode()).decode() if token else ""
    except InvalidToken:
        raise UndecipherableError("none of REDRIVE_ENCRYPTION_KEYS opens this value") from None


def rotate(token: str) -> str:
    """The same text under the first key. Raises UndecipherableError."""
    try:
        return ring().rotate(token.encode()).decode() if token else ""
    except InvalidToken:
        raise UndecipherableError("none of REDRIVE_ENCRYPTION_KEYS opens this value") from None


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Text that is a Fernet token in the database and plain in Python."""

    def get_prep_value(self, value: Any) -> Any:
        return encrypt(value) if value is not None else None

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        return decrypt(value) if value is not None else None
