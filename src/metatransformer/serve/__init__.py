"""Trained models over HTTP: the owners of the models, a bounded queue in front of them, and strangers' files read apart.

A request's bytes are counted as they come (``border``), become files and rows under our own names (``asked``), samples
in a process that may open nothing else (``decoders``, ``sandbox``), and answers in the one thread that owns the models
(``engine``).
"""
