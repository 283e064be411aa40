"""Lets changed keys and limits be noticed."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "apps.access"
    label = "access"

    def ready(self) -> None:
        from apps.access import authentication
        from apps.core import config_version

        config_version.on_change(authentication.forget)
