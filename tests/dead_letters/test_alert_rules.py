"""The rules that ship are there after each migration, as people have changed them."""

from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import post_migrate
from django.test.utils import CaptureQueriesContext

from apps.dead_letters.alerts import rules
from apps.dead_letters.models import AlertRule

pytestmark = pytest.mark.django_db


def migrated() -> None:
    """What Django tells once it has migrated, or flushed."""
    config = apps.get_app_config("dead_letters")
    post_migrate.send(sender=config, app_config=config, verbosity=0, interactive=False, using="default")


def test_an_installation_begins_with_a_rule_for_each_event() -> None:
    assert set(AlertRule.objects.values_list("name", flat=True)) == set(rules.DEFAULTS)
    assert set(AlertRule.objects.values_list("event", flat=True)) == set(AlertRule.Event.values)
    rate = AlertRule.objects.get(event=AlertRule.Event.RATE)
    assert (rate.threshold, rate.window, rate.severity, rate.enabled) == (10, 3600, "critical", True)
    oldest = AlertRule.objects.get(event=AlertRule.Event.OLDEST_OPEN)
    assert (oldest.age, oldest.severity) == (86_400, "warning")


def test_they_are_valid_as_a_person_would_save_them() -> None:
    for rule in AlertRule.objects.all():
        rule.full_clean()
        assert rules.is_default(rule)
    assert not rules.is_default(AlertRule(name="mine"))


def test_what_people_changed_stays_and_what_is_missing_comes_back() -> None:
    AlertRule.objects.filter(event="rate").update(threshold=50, enabled=False)
    AlertRule.objects.filter(event="regressed").delete()
    AlertRule.objects.create(name="mine", event="rate", threshold=3)
    migrated()
    migrated()
    assert AlertRule.objects.count() == len(rules.DEFAULTS) + 1
    rate = AlertRule.objects.get(name="10 failures of one kind within 1 hour")
    assert (rate.threshold, rate.enabled) == (50, False)
    assert AlertRule.objects.filter(event="regressed").count() == 1


def test_that_costs_a_flush_one_query() -> None:
    with CaptureQueriesContext(connection) as seen:
        rules.insert_missing(None, using="default")
    assert sum("alertrule" in query["sql"] for query in seen) == len(seen) == 1


def test_before_there_were_rules_nothing_is_added() -> None:
    class Earlier:
        def get_model(self, *names: str) -> Any:
            raise LookupError(names)

    AlertRule.objects.all().delete()
    rules.insert_missing(None, using="default", apps=Earlier())
    assert not AlertRule.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_flush_leaves_the_rules_there() -> None:
    AlertRule.objects.all().delete()
    call_command("flush", interactive=False, verbosity=0)
    assert AlertRule.objects.count() == len(rules.DEFAULTS)
