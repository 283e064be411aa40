"""Models hold fields; commands say what they do; secrets are never shown."""

from typing import Any

import pytest
from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import get_commands, load_command_class
from django.db import models
from django.test import RequestFactory
from rest_framework.serializers import ModelSerializer

from apps.access.audit import SECRET_FIELDS
from apps.core.crypto import EncryptedTextField

OURS = [model for model in apps.get_models() if model.__module__.startswith("apps.")]
COMMANDS = [(app, command) for command, app in get_commands().items() if app.startswith("apps.")]
ENCRYPTED = [
    (model, field) for model in OURS for field in model._meta.concrete_fields if isinstance(field, EncryptedTextField)
]
PLAIN = "sk-plain-secret-that-nobody-may-see"


def label(value: Any) -> str:
    """A model or a command as it is shown."""
    return value._meta.label if isinstance(value, type) else str(value)


@pytest.mark.parametrize("model", OURS, ids=label)
def test_a_model_has_no_save_of_its_own_and_no_default_order(model: type[models.Model]) -> None:
    for kind in model.__mro__:
        if kind.__module__.startswith("apps."):
            assert not {"save", "delete", "save_base"} & set(vars(kind))
    assert not model._meta.ordering


@pytest.mark.parametrize("model", OURS, ids=label)
def test_a_model_says_what_it_is(model: type[models.Model]) -> None:
    assert model.__doc__
    assert not model.__doc__.startswith(f"{model.__name__}(")


@pytest.mark.parametrize(("app", "command"), COMMANDS, ids=label)
def test_a_command_says_what_it_does_and_so_do_its_arguments(app: str, command: str) -> None:
    loaded = load_command_class(app, command)
    assert len(loaded.help) > 20
    silent = [action.dest for action in loaded.create_parser("manage.py", command)._actions if not action.help]
    assert silent == []


def test_there_are_secrets_to_guard() -> None:
    assert {(model.__name__, field.name) for model, field in ENCRYPTED} >= {
        ("Provider", "api_key"),
        ("Provider", "headers"),
    }


@pytest.mark.parametrize(("model", "field"), ENCRYPTED, ids=str)
def test_an_encrypted_field_is_in_no_list_search_or_filter(model: Any, field: Any) -> None:
    registered = admin.site._registry.get(model)
    if registered is None:
        return
    for attribute in ("list_display", "search_fields", "list_filter", "readonly_fields", "ordering"):
        assert field.name not in str(getattr(registered, attribute, ()))


@pytest.mark.django_db
@pytest.mark.parametrize("model", {model for model, _ in ENCRYPTED}, ids=label)
def test_a_form_never_shows_an_encrypted_field(model: Any) -> None:
    registered = admin.site._registry.get(model)
    if registered is None:
        return
    request = RequestFactory().get("/")
    request.user = get_user_model().objects.create_superuser("root")
    secrets = {field.name: PLAIN for owner, field in ENCRYPTED if owner is model}
    row = model(**secrets)
    form: forms.ModelForm[Any] = registered.get_form(request, row, change=True)(instance=row)
    assert PLAIN not in form.as_p()
    assert PLAIN not in str(row)
    assert PLAIN not in repr(row)


def serializers(kind: type[Any]) -> set[type[Any]]:
    """All serializers of models that are loaded."""
    return {kind}.union(*map(serializers, kind.__subclasses__()))


def test_no_serializer_holds_a_secret() -> None:
    for kind in serializers(ModelSerializer):
        meta = getattr(kind, "Meta", None)
        if meta is None or getattr(meta, "model", None) not in OURS:
            continue
        assert meta.fields != "__all__"
        secrets = {field.name for model, field in ENCRYPTED if model is meta.model} | SECRET_FIELDS
        assert not secrets & set(meta.fields)
