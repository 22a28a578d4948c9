"""The imperative shell: the bus, the step runtime, the roles, the gate and the command line."""
