"""The demo: a real model, a real broker, nothing scripted."""
