"""Names the ledger as the source of what was spent."""

from django.apps import AppConfig


class CompletionsConfig(AppConfig):
    name = "apps.completions"
    label = "completions"

    def ready(self) -> None:
        from apps.access import admission
        from apps.completions import ledger

        admission.register_spend_source(ledger.spend_of_month)
