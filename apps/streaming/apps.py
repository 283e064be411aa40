"""The Django app of the websocket door; it has no models."""

from django.apps import AppConfig


class StreamingConfig(AppConfig):
    name = "apps.streaming"
    label = "streaming"
