"""Believable work and failures to look at, in a project of its own, which can be removed again."""
