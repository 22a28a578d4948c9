"""The sandbox: a target runs in a child process that can hang, crash, fork or eat memory without harming the daemon."""
