"""The Redis fixtures for tests of core."""

import tests.properties  # noqa: F401 (sets the profile)
from tests.stores import point_redis_at, valkey

__all__ = ["point_redis_at", "valkey"]
