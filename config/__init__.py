"""Typed settings, the error tree and canonical bytes: the ground that every other package stands on."""
