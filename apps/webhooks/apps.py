"""Tells of tasks that end: receives them, delivers what is to be told, and checks callback URLs at the accept."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "apps.webhooks"
    label = "webhooks"

    def ready(self) -> None:
        from apps.core import pruning
        from apps.tasks import accept, kinds, verify
        from apps.tasks.signals import tasks_finished
        from apps.webhooks import announce, delivery, door, queries, retention

        kinds.register(delivery.KIND)
        accept.register_callback_check(door.check)
        verify.register(queries.EVERY_END_IS_TOLD)
        pruning.register("webhooks", "webhook events, tries and expired secrets", retention.prune)
        tasks_finished.connect(announce.receive, dispatch_uid="webhooks.announce")
