"""The breakers of all upstreams for people: which are open, for how long, and closing them by hand."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from redis.exceptions import RedisError

from apps.access import audit
from apps.access.permissions import require
from apps.providers import circuit_breaker
from apps.providers.contract import ProviderConfig, UpstreamConfig
from apps.providers.models import Provider, Upstream

MAY_RESET = "providers.reset_breaker"
HEALTHY = "closed"
WORDS = {
    "closed": "Calls go through.",
    "open": "It failed too often: calls go elsewhere until it is tried again.",
    "probe": "The next call tries whether it works again.",
    "blocked": "It refused our credentials: calls go elsewhere until the provider is saved or tested.",
    "unknown": "Redis does not answer: each process goes by what it sees itself.",
    "disabled": "The provider is disabled: no call goes there.",
}


@dataclass(frozen=True, slots=True)
class Breaker:
    """One (provider, upstream model). state: a key of WORDS. wait: seconds until a call may go."""

    provider: Provider
    model: str
    routes: tuple[str, ...]
    state: str
    wait: float
    failures: int

    @property
    def words(self) -> str:
        """What the state means."""
        return WORDS[self.state]

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing to reset."""
        return self.state == HEALTHY and not self.failures


def load(*, provider: Provider | None = None) -> list[Breaker]:
    """The breakers of one provider or of all, those in trouble first. With Redis away their state is `unknown`."""
    rows = Upstream.objects.select_related("provider", "route").defer("provider__api_key", "provider__headers")
    places: dict[tuple[Any, str], tuple[Provider, list[str]]] = {}
    for row in rows.filter(provider=provider) if provider else rows:
        found = places.setdefault((row.provider_id, row.model), (row.provider, []))
        found[1].append(row.route.public_name)
    states = _states([_upstream(owner, model) for (_, model), (owner, _) in places.items()])
    breakers = [
        Breaker(
            owner,
            model,
            tuple(sorted(routes)),
            state.name if owner.enabled else "disabled",
            state.wait,
            state.failures,
        )
        for ((_, model), (owner, routes)), state in zip(places.items(), states, strict=True)
    ]
    return sorted(breakers, key=lambda one: (one.is_closed, one.provider.name, one.model))


def trouble(breakers: list[Breaker]) -> int:
    """How many keep calls away."""
    return sum(one.state in {"open", "probe", "blocked"} for one in breakers)


@transaction.atomic
def reset(provider: Provider, models: list[str], *, actor: Any = None, reason: str = "") -> None:
    """Close the breakers of these upstream models and lift their blocks. Raises PermissionDenied, redis.RedisError."""
    require(actor, MAY_RESET)
    for model in models:
        circuit_breaker.reset(_upstream(provider, model))
    audit.record("reset_breaker", provider, actor=actor, reason=reason, after={"models": models})


def models_of(provider: Provider) -> list[str]:
    """The upstream models that routes use at this provider."""
    return sorted(set(Upstream.objects.filter(provider=provider).values_list("model", flat=True)))


def _states(upstreams: list[UpstreamConfig]) -> list[circuit_breaker.State]:
    if not upstreams:
        return []
    try:
        return circuit_breaker.look_all(upstreams)
    except RedisError:
        return [circuit_breaker.State("unknown", 0, 0)] * len(upstreams)


def _upstream(provider: Provider, model: str) -> UpstreamConfig:
    # Without the secrets: a breaker needs none, and a secret that cannot be deciphered must not hide it.
    config = ProviderConfig(
        id=provider.pk,
        name=provider.name,
        kind=provider.kind,
        base_url=provider.base_url,
        headers={},
        breaker_failures=provider.breaker_failures,
        breaker_window=provider.breaker_window,
        breaker_reset=provider.breaker_reset,
        version=provider.updated_at.isoformat(),
    )
    return UpstreamConfig(config, model)
