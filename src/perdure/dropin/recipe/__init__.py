"""The backups of collective.recipe.backup, made and restored: repozo repositories beside backups of blobs.

`naming` says what is on disk. A run (`running`) copies the blobs, then has the databases backed up, then
gives the blobs their name: where a backup of a Data.fs is, its blobs are. A restore (`restoring`) reads the
Data.fs to know which blobs belong to it, and finds each of them, or refuses.
"""
