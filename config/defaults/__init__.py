"""Shipped documents: what a fresh installation applies."""
