"""Names the ledger as the source of what was spent, and stored texts as what is pruned."""

from django.apps import AppConfig


class CompletionsConfig(AppConfig):
    name = "apps.completions"
    label = "completions"

    def ready(self) -> None:
        from apps.access import admission
        from apps.completions import ledger, retention
        from apps.core import pruning

        admission.register_spend_source(ledger.spend_of_month)
        pruning.register("bodies", "stored bodies", retention.prune_bodies)
