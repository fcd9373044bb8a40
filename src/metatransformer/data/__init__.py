"""From what a user hands in to records, splits and files; no torch."""
