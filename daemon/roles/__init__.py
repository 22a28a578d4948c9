"""The roles as cores on the shell: observe, decide, gate, validate."""
