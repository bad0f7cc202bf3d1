"""The settings of `perdure site` and of the recipe: the options of collective.recipe.backup, and ours.

The names are those of collective.recipe.backup 6.0 and, where it dropped an option, 4.2; in perdure.toml they
have ``-`` for ``_``. A relative path is relative to the file, in a buildout to what the option says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from perdure.config.section import Section, key
from perdure.config.values import Count, Duration, Location

Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class SiteSection(Section, frozen=True):
    """Backups as files, as collective.recipe.backup lays them out: what `perdure site` does."""

    name: Annotated[
        str, key("Name of the part; folders are called after it, and scripts.", "plonebackup")
    ] = "backup"
    location: Annotated[
        Path | None, key("Folder of what `backup` makes of the Data.fs.", "/srv/backup/site")
    ] = None
    snapshotlocation: Annotated[
        Path | None, key("The same of `snapshotbackup`.", "/srv/backup/snapshots")
    ] = None
    ziplocation: Annotated[Path | None, key("The same of `zipbackup`.", "/srv/backup/zips")] = None
    blobbackuplocation: Annotated[
        Path | None, key("Folder of what `backup` makes of the blobs.", "/srv/backup/blobs")
    ] = None
    blobsnapshotlocation: Annotated[
        Path | None, key("The same of `snapshotbackup`.", "/srv/backup/blobsnapshots")
    ] = None
    blobziplocation: Annotated[
        Path | None, key("The same of `zipbackup`.", "/srv/backup/blobzips")
    ] = None
    locationprefix: Annotated[
        Path | None, key("Where these folders are that have no location.", "/srv/backup")
    ] = None
    datafs: Annotated[
        Path | None,
        key("The Data.fs; by default it is found.", "/srv/plone/var/filestorage/Data.fs"),
    ] = None
    blob_storage: Annotated[
        Path | None,
        key("Its blob directory; by default it is found.", "/srv/plone/var/blobstorage"),
    ] = None
    additional_filestorages: Annotated[
        tuple[str, ...],
        key("More storages, each `NAME [PATH [BLOBS]]`.", ["catalog /srv/plone/var/catalog.fs"]),
    ] = ()
    backup_blobs: Annotated[bool, key("Whether blobs are backed up.", False)] = True
    only_blobs: Annotated[bool, key("Whether only blobs are backed up.", True)] = False
    keep: Annotated[Number, key("Full backups that are kept; 0 keeps all.", 5)] = 2
    keep_blob_days: Annotated[
        Number, key("With only-blobs: days for which backups are kept.", 30)
    ] = 14
    keep_last: Annotated[Count | None, key("Keep the last so many, too.", 5)] = None
    keep_hourly: Annotated[Count | None, key("Keep one of each of so many hours, too.", 24)] = None
    keep_daily: Annotated[Count | None, key("Keep one of each of so many days, too.", 14)] = None
    keep_weekly: Annotated[Count | None, key("Keep one of each of so many weeks, too.", 8)] = None
    keep_monthly: Annotated[Count | None, key("Keep one of each of so many months, too.", 12)] = (
        None
    )
    keep_yearly: Annotated[Count | None, key("Keep one of each of so many years, too.", 10)] = None
    full: Annotated[bool, key("Whether `backup` always makes a full one.", True)] = False
    gzip: Annotated[bool, key("Whether databases are compressed.", False)] = True
    quick: Annotated[
        bool, key("Whether `backup` compares only the end of what it made before.", False)
    ] = True
    archive_blob: Annotated[bool, key("Whether blobs go into a tar.", True)] = False
    compress_blob: Annotated[bool, key("Whether that is compressed.", True)] = False
    incremental_blobs: Annotated[bool, key("Whether tars hold only what is new.", True)] = False
    blob_timestamps: Annotated[
        bool, key("Whether backups of blobs are named by their time; else .0, .1, ...", False)
    ] = True
    use_rsync: Annotated[
        bool, key("Whether unchanged blobs are linked to; else all are copied.", False)
    ] = True
    rsync_options: Annotated[
        str | None, key("Options for rsync; without any, rsync is not needed.", "--no-owner")
    ] = None
    rsync_hard_links_on_first_copy: Annotated[
        bool, key("Whether the first backup links to the live blobs.", True)
    ] = False
    pre_command: Annotated[
        str | None, key("Shell script that runs first.", "mount /srv/backup")
    ] = None
    post_command: Annotated[
        str | None, key("Shell script that runs when all went well.", "umount /srv/backup")
    ] = None
    failed_command: Annotated[
        str | None, key("Shell script that runs when something went wrong.", "logger failed")
    ] = None
    finally_command: Annotated[
        str | None, key("Shell script that runs last, whatever happened.", "rm -f /run/backup")
    ] = None
    command_timeout: Annotated[Duration, key("A script that runs longer is ended.", "30m")] = (
        Duration(hours=1)
    )
    lock_timeout: Annotated[Duration, key("Wait so long for another run to end.", "1h")] = Duration(
        minutes=10
    )
    debug: Annotated[bool, key("Whether more is said.", True)] = False
    enable_snapshotrestore: Annotated[bool, key("Whether there is `snapshotrestore`.", False)] = (
        True
    )
    enable_zipbackup: Annotated[
        bool, key("Whether there are `zipbackup` and `ziprestore`.", True)
    ] = False
    enable_fullbackup: Annotated[bool, key("Whether there is `fullbackup`.", True)] = False
    alternative_restore_source: Annotated[
        tuple[str, ...],
        key(
            "What `altrestore` restores from: `Data BACKUPS [BLOBBACKUPS]`, of each storage.",
            ["Data /mnt/production/backups /mnt/production/blobs"],
        ),
    ] = ()
    repository: Annotated[
        Location | None,
        key("A Perdure repository: backups go there, as snapshots.", "/srv/backup/repository"),
    ] = None
    password_file: Annotated[
        Path | None, key("File with the password of that repository.", "/etc/perdure/key")
    ] = None
    keep_files: Annotated[bool, key("Whether backups as files are made even so.", True)] = False
    base_dir: Annotated[Path | None, key("Folder of the site.", "/srv/plone")] = None
    bin_dir: Annotated[Path | None, key("Where `generate` writes scripts.", "/srv/plone/bin")] = (
        None
    )
    var_dir: Annotated[Path | None, key("Folder of its data.", "/srv/plone/var")] = None
    cron: Annotated[str, key("When `crontab` has `backup` run.", "30 2 * * *")] = "0 3 * * *"
    snapshot_cron: Annotated[
        str | None, key("When `crontab` has `snapshotbackup` run.", "0 4 * * 0")
    ] = None
