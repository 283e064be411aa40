"""One module per protocol; `for_kind` finds it."""

from apps.providers.adapters.openai_http import OpenAIHTTP
from apps.providers.contract import Adapter

_ADAPTERS: dict[str, Adapter] = {"openai_http": OpenAIHTTP()}


def for_kind(kind: str) -> Adapter:
    """The adapter of a provider's kind (Provider.Kind)."""
    return _ADAPTERS[kind]
