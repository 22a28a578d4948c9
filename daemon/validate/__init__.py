"""The shell part of the validate role: the worker that executes attempts, and the window collector."""
