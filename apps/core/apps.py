"""Registers the health checks of the two stores, and pruning as a chore of the clock."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"

    def ready(self) -> None:
        from apps.core import clock, health, pruning, store_checks

        health.register("postgres", store_checks.postgres)
        health.register("redis", store_checks.redis)
        health.register("migrations", store_checks.migrations)
        clock.register("prune", 10.0, pruning.tick)
