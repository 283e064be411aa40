"""The admin of projects, API keys, operators' tokens and the audit."""

from apps.access.admin import api_keys, audit_entries, operator_tokens, projects

__all__ = ["api_keys", "audit_entries", "operator_tokens", "projects"]
