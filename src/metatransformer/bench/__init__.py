"""Benchmarks on real data: registered data sets, controls beside every score."""
