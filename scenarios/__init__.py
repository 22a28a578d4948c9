"""The synthetic adversaries: records, generators, targets, the sandbox and the runner."""
