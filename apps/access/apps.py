"""Lets changed keys and limits be noticed, and Idempotency-Keys be forgotten in time."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "apps.access"
    label = "access"

    def ready(self) -> None:
        from apps.access import authentication, idempotency
        from apps.core import clock, config_version

        config_version.on_change(authentication.forget)
        clock.register("idempotency", 10.0, idempotency.prune)
