"""The gate: policy and state machine, pure."""
