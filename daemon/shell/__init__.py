"""The step runtime: poll, decode, step, one transaction; journal, snapshot, recovery. One for all roles."""
