"""DirectoryStorage's backup tool, its snapshot tool and its raw procedure, on its own files; and ways back.

What to import for a program of one's own (docs/directorystorage.md shows one)::

    states           look: in which state a HOME is
    locks            lock and sublock
    holding          hold a storage still; what a snapshot tool around holds
    asking           XML-RPC, old ZEO, direct: how a storage is asked
    rolling_forward  what a storage does when it starts
    members          what goes into an archive, of a storage that is held still or lives
    backup           archives and their index
    restore, chain   from archives to a HOME
    verify, verify_archives, wreckage, living_copy
"""
