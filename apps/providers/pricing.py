"""What a call costs: the route's own price, else the published one (genai-prices, offline), else a guess."""

import functools
from dataclasses import dataclass

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from apps.providers.contract import RouteConfig, Usage

UNKNOWN_NUSD = 1_000.0  # nano-USD a token: 0.001 USD per 1,000 tokens
_M = 1_000_000
_A_MILLION = (
    PricedUsage(input_tokens=_M),
    PricedUsage(input_tokens=_M, cache_read_tokens=_M),
    PricedUsage(output_tokens=_M),
)


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-USD a token; `known` is False where it is a guess."""

    input_nusd: float
    output_nusd: float
    cached_nusd: float
    known: bool

    def cost(self, usage: Usage) -> int:
        """Nano-USD of a usage, rounded."""
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        total = (
            fresh * self.input_nusd + usage.cached_tokens * self.cached_nusd + usage.output_tokens * self.output_nusd
        )
        return round(total)


UNKNOWN = Price(UNKNOWN_NUSD, UNKNOWN_NUSD, UNKNOWN_NUSD, known=False)


def price(route: RouteConfig, upstream_model: str) -> Price:
    """The price of a route when served by an upstream's model."""
    if route.input_nusd is not None or route.output_nusd is not None:
        inwards, outwards = route.input_nusd or 0.0, route.output_nusd or 0.0
        return Price(inwards, outwards, inwards, known=True)
    return published(upstream_model)


def dearest(route: RouteConfig) -> Price:
    """The highest price among a route's upstreams, for what is reserved before the upstream is known."""
    if len(route.upstreams) == 1:
        return price(route, route.upstreams[0].model)
    prices = [price(route, upstream.model) for upstream in route.upstreams]
    return max(prices, key=lambda one: one.input_nusd + one.output_nusd, default=UNKNOWN)


@functools.lru_cache(maxsize=4096)
def published(model: str) -> Price:
    """The published price of a model by its name, with or without its maker (`openai/gpt-4o`)."""
    maker, slash, name = model.partition("/")
    candidates = [(model, None), (model, "openai"), *([(name, maker)] if slash else [])]
    for ref, provider_id in candidates:
        try:
            # US dollars for a million tokens are 1,000 nano-USD a token.
            inwards, cached, outwards = (
                float(calc_price(usage, model_ref=ref, provider_id=provider_id).total_price) * 1000
                for usage in _A_MILLION
            )
        except (LookupError, ValueError):
            continue
        return Price(inwards, outwards, cached, known=True)
    return UNKNOWN
