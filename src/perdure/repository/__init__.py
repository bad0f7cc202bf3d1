"""restic's repository format over a store: keys, packfiles, index, snapshots, locks.

`Repository` is what use cases work with; `Writer` adds to it, under a `Lock`.
"""

from perdure.repository.keys import Owner
from perdure.repository.locks import Lock
from perdure.repository.repository import Repository
from perdure.repository.writer import Added, Writer

__all__ = ["Added", "Lock", "Owner", "Repository", "Writer"]
