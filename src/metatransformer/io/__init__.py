"""Bytes <-> numpy: what stands where (``index``), readers of each format, and safe writing."""
