"""DirectoryStorage's backup tool, on its own files."""
