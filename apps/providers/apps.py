"""Lets changed providers and routes be noticed, and registers the health check of their secrets."""

from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "apps.providers"
    label = "providers"

    def ready(self) -> None:
        from apps.core import config_version, health
        from apps.providers import routing, stored_secrets

        health.register("encryption", stored_secrets.check)
        config_version.on_change(routing.forget)
