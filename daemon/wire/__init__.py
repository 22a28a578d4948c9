"""Wire contracts: what comes in, what goes out, and why a record was refused."""
