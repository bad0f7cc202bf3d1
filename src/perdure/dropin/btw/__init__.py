"""btw-backup: directories as ``.tbz`` files or rdiff-backup repositories, PostgreSQL dumps, a copy in S3.

It works on btw-backup's own files (version 2.0.2): its configuration directory, its state file, and what
it wrote below ROOT_PATH, here and in the bucket. What is on the disk is always whole: a backup is made
under a name with a dot before it, synced, and renamed.
"""
