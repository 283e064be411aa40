"""Which Apprise URLs a channel may have: those that send over the network, and read nothing of this machine.

No Django here: the child process that sends asks it too.
"""

import re
from typing import Final
from urllib.parse import unquote

LONGEST: Final = 2000
SCHEMES: Final = frozenset(
    """
    apprise apprises betterstack dingtalk discord feishu flock form forms gchat goalert goalerts gotify gotifys
    hassio hassios https ifttt ilert incidentio irc ircs jira json jsons lark line mailgun mailto mailtos
    mastodon mastodons matrix matrixs mmost mmosts msgbird nctalk nctalks ntfy ntfys opsgenie opsimate opsimates
    pagerduty pagertree pbul postmark pover prowl resend rocket rockets rsyslog ryver sendgrid ses signal
    signals signl4 sinch slack smtp2go sns sparkpost splunk squadcast synology synologys tgram threema twilio
    victorops voipms vonage webex wecombot whatsapp workflow workflows wxteams xml xmls xmpp xmpps zulip
    """.split()  # noqa: SIM905 (a list of words)
)
ON_THIS_MACHINE: Final = frozenset({
    "blink1", "dbus", "file", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "vapid", "windows",
})  # fmt: skip
READS_FILES: Final = frozenset({
    "attach", "attachment", "config", "include", "keyfile", "pgp", "pgpkey", "pgpprv", "pgppub", "subfile", "template",
    "wkd",
})  # fmt: skip
_SCHEME = re.compile(r"([a-z][a-z0-9]{1,15})://(?=\S)", re.IGNORECASE)


def complaint(url: str) -> str:
    """What is wrong with a URL, in words that hold nothing of it but its scheme; empty: nothing."""
    match = _SCHEME.match(url)
    if match is None:
        return "It begins with the name of a service, such as slack:// or mailto://."
    scheme = match[1].lower()
    if scheme in ON_THIS_MACHINE:
        return f"{scheme}:// acts on the machine that Redrive runs on. Only what is sent over the network is allowed."
    if scheme not in SCHEMES:
        return f"{scheme}:// is not among the services that are allowed. docs/alerts.md names the usual ones."
    if len(url) > LONGEST or not url.isprintable() or " " in url or len(_SCHEME.findall(url)) > 1:
        return f"A channel has one {scheme}:// URL, without spaces, of at most {LONGEST} characters."
    # As Apprise takes a URL apart, which knows more separators than others do, and reads `+` as a space.
    names = {_name(part) for part in re.split(r"[?&;]", url)[1:]}
    reading = names & READS_FILES
    if reading:
        return f"The parameter {min(reading)} reads a file, or another address, and is not allowed."
    return ""


def _name(part: str) -> str:
    return unquote(part.partition("=")[0].replace("+", " ")).strip().lower()
