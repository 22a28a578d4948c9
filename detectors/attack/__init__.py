"""Recurring adversarial patterns: what one client's queries look like, beside those of all others."""
