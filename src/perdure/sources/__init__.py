"""What can be backed up: read at a cut, and written back. Nothing here knows a repository."""
