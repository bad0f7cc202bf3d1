"""The fixtures of these tests."""

from btw_fixtures import fixtures
from btw_site import copied_site, site
from command_line import bare_environment, program
from object_server import object_server
from postgresql import postgresql

__all__ = [
    "bare_environment",
    "copied_site",
    "fixtures",
    "object_server",
    "postgresql",
    "program",
    "site",
]
