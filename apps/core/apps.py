"""Registers the health checks of the two stores and pruning, and arms the failpoints where a test wants them."""

import structlog
from django.apps import AppConfig
from django.conf import settings


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"

    def ready(self) -> None:
        from apps.core import clock, failpoints, health, pruning, store_checks

        health.register("postgres", store_checks.postgres)
        health.register("redis", store_checks.redis)
        health.register("migrations", store_checks.migrations)
        clock.register("prune", 10.0, pruning.tick)
        if settings.REDRIVE.failpoints_enabled:
            failpoints.arm(settings.REDRIVE.failpoints)
        elif settings.REDRIVE.failpoints:
            structlog.get_logger(__name__).warning("failpoints_ignored", missing="REDRIVE_FAILPOINTS_ENABLED")
