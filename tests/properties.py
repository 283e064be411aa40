"""How Hypothesis runs here: no deadlines, for the machine may be busy, and no haste while it builds its tables."""

from hypothesis import HealthCheck, settings

settings.register_profile("redrive", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("redrive")
