"""This machine: its console, its device, its packages."""
