"""Says in plain words what a dead letter is about."""
