"""Receives the tasks that die, tells of their letters in the tasks' status, alerts, and names what is pruned."""

from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "apps.dead_letters"
    label = "dead_letters"
    verbose_name = "Dead letters"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from apps.core import clock, pruning
        from apps.dead_letters import intake, queries, retention, tallies
        from apps.dead_letters.alerts import digest, notification, rules, watch
        from apps.dead_letters.bulk import pacer
        from apps.tasks import kinds, verify
        from apps.tasks import queries as task_queries
        from apps.tasks.signals import tasks_died, tasks_finished

        verify.register(queries.ONE_LETTER_OF_EACH_DEATH)
        verify.register(queries.REDRIVES_ARE_AUDITED)
        verify.register(queries.COUNTS_ARE_TRUE)
        verify.register(queries.ITEMS_ARE_DECIDED_ONCE)
        tasks_died.connect(intake.receive, dispatch_uid="dead_letters.intake")
        tasks_finished.connect(intake.note_outcomes, dispatch_uid="dead_letters.outcomes")
        clock.register("letters", 1.0, tallies.fold)
        clock.register("bulk", pacer.EVERY, pacer.tick)
        clock.register("alerts", watch.EVERY, watch.tick)
        clock.register("digest", digest.EVERY, digest.tick)
        kinds.register(notification.KIND)
        post_migrate.connect(rules.insert_missing, sender=self, dispatch_uid="dead_letters.alert_rules")
        pruning.register("alerts", "alerts that are over", retention.prune_alerts)
        pruning.register("groups", "failure groups without letters", retention.prune_groups)
        pruning.register("group_hours", "hours of failure groups", retention.prune_hours)
        pruning.register("operations", "bulk operations", retention.prune_operations)
        pruning.register("letters", "letters of tasks that are gone", retention.prune_letters)
        pruning.register("tasks_discarded", "discarded tasks", retention.prune_discarded)
        task_queries.register_part("dead_letter", queries.of_tasks)
