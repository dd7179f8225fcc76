"""Where runs live; one file a backend."""
