"""Targets: models under validation behind one small interface."""
