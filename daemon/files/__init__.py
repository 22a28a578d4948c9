"""Tables in files (Parquet, Arrow, CSV, JSON lines) as slices, by the column conventions of backtest."""

from regate.daemon.files.table import Table, read_table

__all__ = ["Table", "read_table"]
