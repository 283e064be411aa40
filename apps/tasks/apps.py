"""Registers the kinds of this app and the chores of the clock."""

from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "apps.tasks"
    label = "tasks"

    def ready(self) -> None:
        from apps.core import clock, health
        from apps.tasks import kinds, liveness, sweep
        from apps.tasks.handlers import chat_completion, embeddings
        from apps.tasks.lifecycle import expire, reap

        kinds.register(chat_completion.KIND)
        kinds.register(embeddings.KIND)
        clock.register("ring", 1.0, sweep.ring_due)
        clock.register("reap", 0.5, reap.reap)
        clock.register("expire", 1.0, expire.expire)
        clock.record_beats(sweep.record_beat)
        # Not vital: without them this process still answers live calls and accepts tasks.
        health.register("clock", liveness.check_clock, vital=False)
        health.register("workers", liveness.check_workers, vital=False)
