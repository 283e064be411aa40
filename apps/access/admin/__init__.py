"""The admin of projects, API keys and the audit."""

from apps.access.admin import api_keys, audit_entries, projects

__all__ = ["api_keys", "audit_entries", "projects"]
