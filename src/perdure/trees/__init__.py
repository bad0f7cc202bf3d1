"""Trees of files in a repository: brought up to date, and found again.

A package beside `history`, with the same rights: what `history` is for the bytes of a database, this is for
ordinary files, in the form that restic gives them.
"""
