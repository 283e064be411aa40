"""The page docs/settings.md names every setting with its default and meaning, as the code has them."""

from pathlib import Path

from pydantic import SecretStr

from apps.core.conf import PREFIX, ROOT, RedriveSettings

PAGE = Path(ROOT / "docs" / "settings.md")
HEAD = """# Settings

Every setting is one environment variable; an unknown `REDRIVE_*` variable stops the start. `scripts/up` generates the
secrets and finds the addresses by itself. This page is checked against `apps/core/conf.py`; write it anew with
`.venv/bin/python -c "from tests.architecture.test_settings_page import *; PAGE.write_text(page())"`.

| variable | default | meaning |
|---|---|---|
"""


def page() -> str:
    """The page as it should be."""
    rows = []
    for name, field in RedriveSettings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        shown = ",".join(shown) if isinstance(shown, list) else shown
        shown = shown.relative_to(ROOT) if isinstance(shown, Path) else shown
        rows.append(f"| `{PREFIX}{name.upper()}` | {f'`{shown}`' if shown != '' else ''} | {field.description} |\n")
    return HEAD + "".join(rows)


def test_the_page_of_settings_is_true() -> None:
    assert PAGE.read_text() == page()
