"""Registers the health checks of the two stores."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"

    def ready(self) -> None:
        from apps.core import health, store_checks

        health.register("postgres", store_checks.postgres)
        health.register("redis", store_checks.redis)
        health.register("migrations", store_checks.migrations)
