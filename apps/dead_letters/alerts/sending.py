"""Sends by Apprise. Called in a child process, which alone imports it; no Django is set up there.

What it returns are words of our own: Apprise's may hold the URL, and a URL holds secrets.
"""

import logging
import re
import warnings

from apps.dead_letters.alerts import addresses

TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
_STATUS = re.compile(r"\berror=(\d{3})\b")


def send(url: str, title: str, body: str, severity: str) -> str:
    """Send one message; why it failed, or nothing. Raises nothing: a traceback may hold the URL."""
    if wrong := addresses.complaint(url):
        return f"Its URL is not allowed. {wrong}"
    heard = _Heard()
    try:
        return _send(url, title, body, severity, heard)
    except Exception as error:
        return f"Apprise failed with {type(error).__name__}."
    finally:
        logging.getLogger("apprise").removeHandler(heard)


def _send(url: str, title: str, body: str, severity: str, heard: "_Heard") -> str:
    import apprise

    warnings.simplefilter("ignore")
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(heard)
    asset = apprise.AppriseAsset(
        app_id="Redrive",
        app_desc="Redrive",
        app_url="",
        async_mode=False,
        storage_mode="memory",
        secure_logging=True,
        allow_templates=False,
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        return "Apprise cannot read its URL: something in it is missing or wrong."
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    sent = sender.notify(body=body, title=title, notify_type=TYPES.get(severity, "info"), body_format="text")
    return "" if sent else heard.words


class _Heard(logging.Handler):
    """Keeps of what Apprise logs only what is safe to show."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words = "The service did not take it."

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a record."""
        text = record.getMessage()
        if found := _STATUS.search(text):
            self.words = f"The service answered {found[1]}."
        elif "onnection error" in text:
            self.words = "The service could not be reached."
