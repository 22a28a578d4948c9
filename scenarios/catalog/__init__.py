"""The catalog: scenario records and suites as YAML files, and what loads them."""
