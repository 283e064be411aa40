"""Textbook Celery and procrastinate, each doing the same work its own documented way."""
