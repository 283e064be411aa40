"""Alerts: when people are told (`rules`, `watch`), how (`channels`, `notification`), and that they know.

The last is `acknowledging`.
"""
