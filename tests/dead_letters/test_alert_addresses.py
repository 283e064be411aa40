"""A channel sends over the network and reads nothing here; what is said of its URL never holds it."""

import sys
from subprocess import run

import pytest

from apps.dead_letters.alerts import addresses, sending
from tests.gateway import ROOT

SECRET = "hush-hush-4711"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("slack://TokenA/TokenB/TokenC/#alerts", ""),
        ("mailto://user:pass@example.com?to=ops@example.com&format=text", ""),
        ("https://hooks.slack.com/services/A/B/C", ""),
        ("JSON://127.0.0.1:8000/x", ""),
        ("syslog://", "begins with"),
        ("syslog://localhost", "acts on the machine"),
        ("DBus://x", "acts on the machine"),
        ("file:///etc/passwd", "acts on the machine"),
        ("gopher://x", "not among the services"),
        ("hush-hush", "begins with"),
        ("", "begins with"),
        ("json://a.test/, json://b.test/", "one json:// URL"),
        ("json://a.test/;json://b.test/", "one json:// URL"),
        ("json://a.test/\n", "one json:// URL"),
        ("json://a.test/" + "x" * 2000, "at most 2000"),
        ("slack://a/b/c/?template=/etc/passwd", "template reads a file"),
        ("discord://a/b?x=1;TEMPLATE=/etc/passwd", "template reads a file"),
        ("discord://a/b?%74emplate=/etc/passwd", "template reads a file"),
        ("discord://a/b?template+=/etc/passwd", "template reads a file"),
        ("discord://a/b?%20Template%20+=/etc/passwd", "template reads a file"),
        ("mailto://a:b@c.test?pgppub=/etc/passwd", "pgppub reads a file"),
        ("ntfy://x?attach=http://a.test/", "one ntfy:// URL"),
        ("ntfy://x?attach=/etc/passwd", "attach reads a file"),
    ],
)
def test_only_urls_that_send_over_the_network_are_allowed(url: str, words: str) -> None:
    found = addresses.complaint(url)
    assert (words in found) if words else not found
    assert "passwd" not in found
    assert "hush" not in found


def test_what_is_not_allowed_is_not_sent_either_and_nothing_it_says_holds_the_url() -> None:
    for url in (f"syslog://{SECRET}", f"slack://{SECRET}", f"json://{SECRET}:{SECRET}@127.0.0.2:1/?template={SECRET}"):
        words = sending.send(url, "t", "b", "info")
        assert words
        assert SECRET not in words


def test_apprise_knows_all_that_is_allowed_and_is_imported_by_nobody_else() -> None:
    code = (
        "import django; django.setup(); import sys; assert 'apprise' not in sys.modules\n"
        "import apprise; from apps.dead_letters.alerts.addresses import SCHEMES, ON_THIS_MACHINE\n"
        "assert SCHEMES - {'https'} <= set(apprise.plugins.N_MGR.schemas())\n"
        "assert not SCHEMES & ON_THIS_MACHINE"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "config.settings", "REDRIVE_SECRET_KEY": "x", "PATH": ""}
    done = run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
