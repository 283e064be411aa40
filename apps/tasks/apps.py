"""Registers the kinds of this app, the chores of the clock, health checks and what is pruned."""

from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "apps.tasks"
    label = "tasks"

    def ready(self) -> None:
        from apps.core import clock, health, pruning
        from apps.tasks import kinds, liveness, retention, sweep
        from apps.tasks.handlers import chat_completion, embeddings
        from apps.tasks.lifecycle import expire, held, reap, wake

        kinds.register(chat_completion.KIND)
        kinds.register(embeddings.KIND)
        clock.register("ring", 1.0, sweep.ring_due)
        clock.register("reap", 0.5, reap.reap)
        clock.register("expire", 1.0, expire.expire)
        clock.register("held", 2.0, held.end_held)
        clock.register("wake", 1.0, wake.wake)
        clock.register("orphans", 5.0, wake.cancel_orphans)
        pruning.register("tasks", "tasks", retention.prune_tasks)
        pruning.register("workers", "workers", retention.prune_workers)
        clock.record_beats(sweep.record_beat)
        # Not vital: without them this process still answers live calls and accepts tasks.
        health.register("clock", liveness.check_clock, vital=False)
        health.register("workers", liveness.check_workers, vital=False)
