"""Write the sites in tests/fixtures/sites that generators make: run by hand when a new one is wanted.

    PYTHONPATH=src:tests python tests/site/make_fixtures.py

The tools of tests/buildout_site.py must be installed (its tests do that). Of a site only what says where its
data are is kept; its folder stands there as @SITE@.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from buildout_site import TOOLS, SiteTools

TARGET = Path(__file__).parent.parent / "fixtures" / "sites"
KEPT = ("buildout.cfg", ".installed.cfg", "etc/*.conf", "parts/*/etc/*.conf")
INSTANCE = """\
[instance]
recipe = plone.recipe.zope2instance
eggs = Zope
user = admin:admin
"""
SERVER = """\
[zeoserver]
recipe = plone.recipe.zeoserver
eggs = ZEO
"""


def parts(*names: str) -> str:
    return f"[buildout]\nparts = {' '.join(names)}\n\n"


BUILDOUTS = {
    "buildout-standalone": parts("instance") + INSTANCE + "zodb-temporary-storage = on\n",
    "buildout-zlib": parts("instance") + INSTANCE + "zlib-storage = active\n",
    "buildout-before-demo": parts("instance")
    + INSTANCE
    + "demo-storage = on\nbefore-storage = 2026-11-21T03:15:00\n"
    + "demo-file-storage = filestorage/Demo.fs\ndemo-blob-storage = var/demoblobs\n",
    "buildout-relstorage": parts("instance")
    + INSTANCE
    + "rel-storage =\n    type postgresql\n    dsn dbname='zodb' user='zope' password='pa$$word'\n"
    + "    blob-dir ${buildout:directory}/var/blobstorage\n    shared-blob-dir true\n",
    "buildout-remote": parts("instance")
    + INSTANCE
    + "zeo-client = on\nzeo-address = db1.example.com:8100 db2.example.com:8100\n"
    + "zeo-client-client = instance\nzeo-storage = plone\n",
    "buildout-two-instances": parts("zeoserver", "instance1", "instance2")
    + SERVER
    + "zeo-address = 127.0.0.1:8100\nblob-storage = blobs\n"
    + "zeo-conf-additional =\n    <filestorage archive>\n"
    + "      path ${buildout:directory}/var/filestorage/archive/archive.fs\n"
    + "      blob-dir ${buildout:directory}/var/blobstorage-archive\n    </filestorage>\n\n"
    + "[base]\nrecipe = plone.recipe.zope2instance\neggs = Zope\nuser = admin:admin\nzeo-client = on\n"
    + "zeo-address = localhost:8100\nzope-conf-additional =\n    <zodb_db archive>\n"
    + "      mount-point /plone/archive:/archive\n      <zeoclient>\n        server 8100\n"
    + "        storage archive\n      </zeoclient>\n    </zodb_db>\n\n"
    + "[instance1]\n<= base\n\n[instance2]\n<= base\nzeo-client-cache-size = 1GB\n",
    "buildout-own-zeo-conf": parts("zeoserver")
    + SERVER
    + "zeo-conf = ${buildout:directory}/etc/zeo.conf\n",
}
OWN_ZEO_CONF = """\
%define DATA @SITE@/data
%include storages.conf
<zeo>
  address ${DATA}/zeo.sock
</zeo>
"""
OWN_STORAGES = """\
<blobstorage 1>
  blob-dir $DATA/blobs
  <filestorage 1>
    path $DATA/Data.fs
  </filestorage>
</blobstorage>
<filestorage users>
  path ${data}/users.fs
</filestorage>
"""


def main() -> None:
    """Write them all."""
    tools = SiteTools(TOOLS)
    for name, buildout in BUILDOUTS.items():
        with TemporaryDirectory() as temporary:
            folder = Path(temporary).resolve()
            (folder / "etc").mkdir()
            if "own-zeo-conf" in name:
                (folder / "etc/zeo.conf").write_text(OWN_ZEO_CONF.replace("@SITE@", str(folder)))
                (folder / "etc/storages.conf").write_text(OWN_STORAGES)
            tools.build(folder, buildout)
            keep(folder, TARGET / name)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        tools.run("mkwsgiinstance", "-d", str(folder / "zope"), "-u", "admin:admin", cwd=folder)
        keep(folder / "zope", TARGET / "mkwsgiinstance")


def keep(folder: Path, target: Path) -> None:
    """Copy what matters, without comments and checksums."""
    shutil.rmtree(target, ignore_errors=True)
    for path in (path for pattern in KEPT for path in folder.glob(pattern)):
        lines = path.read_text().replace(str(folder), "@SITE@").splitlines()
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(
            "".join(
                f"{line}\n"
                for line in lines
                if line.strip()
                and not line.lstrip().startswith("#")
                and "__buildout_signature__" not in line
            )
        )


if __name__ == "__main__":
    main()
