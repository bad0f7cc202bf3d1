"""DirectoryStorage: a HOME read beside its living process, as files, as a ZODB storage, as a source."""
