"""What is copied into an exported folder: ``run.py``, and one file a modality that makes a graph's inputs of files.

They know neither torch nor this package: numpy, and what reads the files.
"""
