"""The admin of providers and model routes."""

from apps.providers.admin import providers, routes

__all__ = ["providers", "routes"]
