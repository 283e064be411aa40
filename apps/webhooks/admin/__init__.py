"""The admin of webhooks."""

from apps.webhooks.admin import attempts, disabled_urls, events, secrets

__all__ = ["attempts", "disabled_urls", "events", "secrets"]
