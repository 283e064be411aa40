"""Lets changed keys and limits be noticed, and Idempotency-Keys and expired tokens be pruned."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "apps.access"
    label = "access"

    def ready(self) -> None:
        from apps.access import authentication, idempotency, operator_tokens
        from apps.core import config_version, pruning

        config_version.on_change(authentication.forget)
        pruning.register("idempotency_keys", "Idempotency-Keys", idempotency.prune)
        pruning.register("operator_tokens", "expired operators' tokens", operator_tokens.prune)
