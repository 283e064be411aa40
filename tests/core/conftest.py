"""The Redis fixtures for tests of core."""

from tests.stores import point_redis_at, valkey

__all__ = ["point_redis_at", "valkey"]
