"""Lets changed providers and routes be noticed."""

from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "apps.providers"
    label = "providers"

    def ready(self) -> None:
        from apps.core import config_version
        from apps.providers import routing

        config_version.on_change(routing.forget)
