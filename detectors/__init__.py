"""Pure detection: statistics, profiles, charts, incidents. No I/O, no clock, no logger, no Kafka."""
