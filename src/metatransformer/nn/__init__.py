"""Floor 1: layers that know no file and no task."""
