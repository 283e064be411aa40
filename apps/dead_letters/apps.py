"""Receives the tasks that die, tells of their letters in the tasks' status, and names what of them is pruned."""

from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "apps.dead_letters"
    label = "dead_letters"
    verbose_name = "Dead letters"

    def ready(self) -> None:
        from apps.core import pruning
        from apps.dead_letters import intake, queries, retention
        from apps.tasks import queries as task_queries
        from apps.tasks import verify
        from apps.tasks.signals import tasks_died

        verify.register(queries.ONE_LETTER_OF_EACH_DEATH)
        verify.register(queries.REDRIVES_ARE_AUDITED)
        tasks_died.connect(intake.receive, dispatch_uid="dead_letters.intake")
        pruning.register("letters", "letters of tasks that are gone", retention.prune_letters)
        pruning.register("tasks_discarded", "discarded tasks", retention.prune_discarded)
        task_queries.register_part("dead_letter", queries.of_tasks)
