"""Which storages a site has: read from its zope.conf, zeo.conf and buildout, or seen where they lie.

Nothing of a site is imported or run, and nothing is fetched.
"""

from perdure.site.discovery import (
    discover,
    from_buildout,
    from_configurations,
    from_zeo_conf,
    from_zope_conf,
)
from perdure.site.found import FILESTORAGE, MAIN, STORAGE, FoundStorage, LeftOut, Site

__all__ = [
    "FILESTORAGE",
    "MAIN",
    "STORAGE",
    "FoundStorage",
    "LeftOut",
    "Site",
    "discover",
    "from_buildout",
    "from_configurations",
    "from_zeo_conf",
    "from_zope_conf",
]
