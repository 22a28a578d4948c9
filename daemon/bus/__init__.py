"""The bus port: Kafka and the in-memory bus behind one contract. Nothing outside this package imports kafka."""
