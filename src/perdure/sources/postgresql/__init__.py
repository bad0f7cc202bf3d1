"""PostgreSQL through its own programs: a database at one point, as a dump that is the same when the data is.

A database is dumped in the directory format without compression: a file for each table, which differs only
where the table does, so that what did not change is stored once; the repository compresses. A session of
``psql`` fixes the point by an exported snapshot, and holds it while ``pg_dump`` reads. What belongs to no
database, roles and tablespaces, is a script of ``pg_dumpall``, with a restrict key that is always the same.

No program ever asks for a password, and none stands on a command line: they are the business of libpq
(~/.pgpass, PGPASSFILE, a service file).
"""
