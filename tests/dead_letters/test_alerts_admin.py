"""The pages of alerts, rules and channels: who sees and does what, and that no secret comes back."""

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access.models import AuditEntry
from apps.dead_letters import tallies
from apps.dead_letters.alerts import notification, rules
from apps.dead_letters.models import Alert, AlertChannel, AlertRule
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import deaths
from tests.tasks.conftest import AsPerson

pytestmark = pytest.mark.django_db
SECRET = "hush-hush-4711"
LIST = reverse("admin:dead_letters_alert_changelist")
NEW = {
    "name": "ops", "new_url": f"json://u:{SECRET}@a.test/", "enabled": "on", "least_severity": "info",
}  # fmt: skip


def url(name: str, row: Any = None) -> str:
    return reverse(f"admin:dead_letters_{name}", args=[row.pk] if row is not None else [])


def an_alert(**fields: Any) -> Alert:
    rule = AlertRule.objects.get(event=fields.get("event", "rate"))
    values = {"event": rule.event, "severity": rule.severity, "subject": uuid4().hex, "title": "too many", **fields}
    return Alert.objects.create(rule=rule, **values)


def a_channel(**fields: Any) -> AlertChannel:
    return AlertChannel.objects.create(**{"name": "ops", "url": f"json://u:{SECRET}@a.test/", **fields})


def stored_url(channel: AlertChannel) -> str:
    return str(AlertChannel.objects.get(pk=channel.pk).url)


def changes(rule: AlertRule, **fields: Any) -> dict[str, Any]:
    names = ("name", "event", "severity", "kind", "threshold", "window", "age", "throttle")
    values = {name: getattr(rule, name) for name in names}
    return {**values, **({"enabled": "on"} if rule.enabled else {}), **fields}


def test_the_list_says_whether_anything_fires(admin_client: Client) -> None:
    html = admin_client.get(LIST).content.decode()
    assert "Nothing fires" in html
    assert "rd-notice rd-good" in html
    first, second = an_alert(), an_alert(event="new_group", title="<b>odd</b>")
    response = admin_client.get(LIST)
    html = response.content.decode()
    assert "2 alerts firing</a>, 1 critical" in html
    assert "&lt;b&gt;odd&lt;/b&gt;" in html
    assert [row.pk for row in response.context["cl"].result_list] == [second.pk, first.pk]
    narrowed = admin_client.get(LIST, {"severity__exact": "critical"})
    assert [row.pk for row in narrowed.context["cl"].result_list] == [first.pk]


def test_the_list_costs_as_much_for_fifty_as_for_one(admin_client: Client) -> None:
    counts = []
    for more in (1, 49):
        for _ in range(more):
            an_alert()
        with CaptureQueriesContext(connection) as seen:
            admin_client.get(LIST)
        counts.append(len(seen))
    assert counts[1] == counts[0] <= 15


def test_a_channel_that_fails_for_good_has_a_banner(admin_client: Client) -> None:
    channel = a_channel(enabled=False)
    assert "did not arrive" not in admin_client.get(LIST).content.decode()
    notification.send_test(channel_id=channel.pk)
    task = Task.objects.get()
    finish(deaths([task], [notification.ChannelFailed(f"{channel.name}: The service answered 404.")]))
    tallies.fold()
    html = admin_client.get(LIST).content.decode()
    assert "sent to ops did not arrive" in html
    assert SECRET not in html


@pytest.mark.parametrize(
    ("event", "subject", "page"),
    [
        ("rate", "chat_completion", "/admin/dead_letters/deadletter/?q=kind%3Achat_completion+state%3Aopen"),
        ("oldest_open", "letters", "/admin/dead_letters/deadletter/?q=state%3Aopen"),
        ("queue_paused", "low", "/admin/tasks/queuestate/"),
        ("clock_silent", "reap", "/admin/tasks/workerpresence/"),
        ("workers_silent", "low", "/admin/tasks/workerpresence/"),
        ("breaker_open", "0198c1aa-0000-7000-8000-000000000000/gpt", "/admin/providers/provider/0198c1aa-0000-7000"),
    ],
)
def test_an_alert_leads_to_what_it_is_about(admin_client: Client, event: str, subject: str, page: str) -> None:
    html = admin_client.get(url("alert_change", an_alert(event=event, subject=subject))).content.decode()
    assert f'href="{page}' in html
    assert "Held back" in html


def test_an_alert_of_a_group_has_its_page_with_or_without_the_groups(admin_client: Client) -> None:
    alert = an_alert(event="new_group", subject="f" * 64)
    assert "f" * 64 in admin_client.get(url("alert_change", alert)).content.decode()
    Alert.objects.update(rule=None)
    assert "deleted meanwhile" in admin_client.get(url("alert_change", alert)).content.decode()


def test_acknowledging_is_asked_for_by_get_and_done_by_post(as_person: AsPerson) -> None:
    client, alert = as_person("view_alert", "acknowledge_alert"), an_alert()
    page = url("alert_acknowledge", alert)
    assert page in client.get(url("alert_change", alert)).content.decode()
    assert client.get(page).status_code == 200
    alert.refresh_from_db()
    assert alert.state == "firing"
    assert client.post(page, {"reason": "on it"})["Location"] == url("alert_change", alert)
    alert.refresh_from_db()
    assert (alert.state, alert.acknowledged_by != "") == ("acknowledged", True)
    assert [(entry.action, entry.reason) for entry in AuditEntry.objects.all()] == [("acknowledge", "on it")]
    assert LogEntry.objects.count() == 1
    assert page not in client.get(url("alert_change", alert)).content.decode()
    assert "acknowledged already" in client.post(page, {}, follow=True).content.decode()
    assert AuditEntry.objects.count() == 1


def test_who_may_only_look_changes_nothing(as_person: AsPerson) -> None:
    client = as_person("view_alert", "view_alertrule", "view_alertchannel")
    alert, rule, channel = an_alert(), AlertRule.objects.get(event="rate"), a_channel()
    for page in (url("alert_change", alert), url("alertrule_change", rule), url("alertchannel_change", channel)):
        html = client.get(page).content.decode()
        assert "send-test" not in html
        assert "acknowledge/" not in html
        assert SECRET not in html
        assert "new_url" not in html
    for name, row in (
        ("alert_acknowledge", alert), ("alertrule_send_test", rule), ("alertchannel_send_test", channel),
        ("alertrule_change", rule), ("alertchannel_change", channel),
    ):  # fmt: skip
        assert client.post(url(name, row), {"name": "x"}).status_code == 403
    assert client.post(url("alertchannel_add"), NEW).status_code == 403
    assert not AuditEntry.objects.exists()
    assert not Task.objects.exists()


def test_who_may_not_look_sees_nothing(as_person: AsPerson) -> None:
    client, alert = as_person("view_task"), an_alert()
    for page in (LIST, url("alertrule_changelist"), url("alertchannel_changelist")):
        assert client.get(page).status_code == 403
    assert client.get(url("alert_change", alert)).status_code in (302, 403)


def test_the_url_of_a_channel_is_written_and_never_shown(admin_client: Client) -> None:
    assert "No channel yet" in admin_client.get(url("alertchannel_changelist")).content.decode()
    assert admin_client.post(url("alertchannel_add"), NEW).status_code == 302
    channel = AlertChannel.objects.get()
    assert stored_url(channel) == NEW["new_url"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT url FROM dead_letters_alertchannel")
        assert SECRET not in cursor.fetchone()[0]
    for page in (url("alertchannel_change", channel), url("alertchannel_changelist")):
        assert SECRET not in admin_client.get(page).content.decode()
    AlertChannel.objects.update(outcome="The service answered 500.", tried_at=channel.created_at)
    admin_client.post(url("alertchannel_change", channel), {**NEW, "new_url": "", "name": "renamed"})
    channel.refresh_from_db()
    assert (channel.name, stored_url(channel)) == ("renamed", NEW["new_url"])
    assert channel.outcome == "The service answered 500."
    admin_client.post(url("alertchannel_change", channel), {**NEW, "new_url": "json://b.test/"})
    channel.refresh_from_db()
    assert (stored_url(channel), channel.outcome) == ("json://b.test/", "")
    entries = list(AuditEntry.objects.order_by("id"))
    assert [entry.action for entry in entries] == ["create", "update", "update"]
    assert entries[2].after["url"] == "(replaced)"
    assert SECRET not in str([(entry.before, entry.after) for entry in entries])


@pytest.mark.parametrize(
    ("bad", "words"), [(f"syslog://{SECRET}", "acts on the machine"), (SECRET, "begins with"), ("", "required")]
)
def test_a_wrong_url_is_refused_in_words_without_it(admin_client: Client, bad: str, words: str) -> None:
    response = admin_client.post(url("alertchannel_add"), {**NEW, "new_url": bad})
    html = response.content.decode()
    assert response.status_code == 200
    assert words in html
    assert SECRET not in html
    assert not AlertChannel.objects.exists()


def test_a_url_that_no_key_opens_breaks_no_page(admin_client: Client) -> None:
    channel, rule = a_channel(), AlertRule.objects.get(event="rate")
    rule.channels.set([channel])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE dead_letters_alertchannel SET url = 'garbage'")
    for page in (
        url("alertchannel_changelist"), url("alertchannel_change", channel), url("alertrule_changelist"),
        url("alertrule_change", rule), url("alertchannel_send_test", channel), url("alertchannel_delete", channel),
    ):  # fmt: skip
        assert admin_client.get(page).status_code == 200, page
    admin_client.post(url("alertrule_change", rule), changes(rule, threshold=20, channels=[channel.pk]))
    assert AlertRule.objects.get(pk=rule.pk).threshold == 20
    assert admin_client.post(url("alertchannel_delete", channel), {"post": "yes"}).status_code == 302
    assert not AlertChannel.objects.exists()


def test_a_test_is_asked_for_by_get_and_sent_by_post(admin_client: Client) -> None:
    channel, rule = a_channel(), AlertRule.objects.get(event="rate")
    for page, row in (("alertchannel_send_test", channel), ("alertrule_send_test", rule)):
        assert "ops" in admin_client.get(url(page, row)).content.decode()
        count = Task.objects.count()
        assert admin_client.post(url(page, row), {"reason": "try"}).status_code == 302
        assert Task.objects.count() == count + 1
    assert AuditEntry.objects.filter(action="send_test", reason="try").count() == 2
    channel.delete()
    html = admin_client.post(url("alertrule_send_test", rule), {}).content.decode()
    assert "No enabled channel takes alerts of this rule" in html


def test_a_rule_is_made_changed_and_audited(admin_client: Client) -> None:
    channel, kind = a_channel(), "embeddings"
    fields = changes(AlertRule(name="mine", event="rate"), kind=kind, channels=[channel.pk])
    assert admin_client.post(url("alertrule_add"), fields).status_code == 302
    rule = AlertRule.objects.get(name="mine")
    assert (rule.kind, list(rule.channels.all())) == (kind, [channel])
    admin_client.post(url("alertrule_change", rule), {**fields, "channels": []})
    entry = AuditEntry.objects.get(action="update")
    assert (entry.before, entry.after) == ({"channels": ["ops"]}, {"channels": []})
    assert admin_client.post(url("alertrule_delete", rule), {"post": "yes"}).status_code == 302
    assert not AlertRule.objects.filter(name="mine").exists()


@pytest.mark.parametrize(("field", "value"), [("threshold", 0), ("window", 5), ("kind", "webhook_delivery")])
def test_a_rule_that_makes_no_sense_is_refused(admin_client: Client, field: str, value: Any) -> None:
    fields = changes(AlertRule(name="mine", event="rate"), **{field: value})
    response = admin_client.post(url("alertrule_add"), fields)
    assert response.context["adminform"].errors[field]


def test_a_rule_that_ships_is_changed_and_disabled_not_renamed_or_deleted(admin_client: Client) -> None:
    rule = AlertRule.objects.get(event="rate")
    fields = changes(rule, name="other", event="regressed", threshold=7)
    del fields["enabled"]
    assert admin_client.post(url("alertrule_change", rule), fields).status_code == 302
    rule.refresh_from_db()
    assert (rule.name in rules.DEFAULTS, rule.event, rule.threshold, rule.enabled) == (True, "rate", 7, False)
    assert admin_client.post(url("alertrule_delete", rule), {"post": "yes"}).status_code == 403


def test_words_that_are_cut_short_say_so(admin_client: Client) -> None:
    an_alert(body="Rate limit reached. " * 20)
    assert "limit reached.…</span>" in admin_client.get(LIST).content.decode()
