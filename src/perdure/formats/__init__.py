"""On-disk formats, one module each: bytes in, values out, no I/O; each docstring is a specification."""
