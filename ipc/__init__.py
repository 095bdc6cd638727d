"""Move bytes, handles and messages between processes. Knows no stage, pipeline or policy."""
