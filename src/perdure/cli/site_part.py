"""Which part `perdure site` works on: that of a buildout, or what configuration, environment and site say.

Later ones win: ``[tool.collective-backup]`` in pyproject.toml, the variables of other tools in a file
``.env`` and in the environment, ``[site]`` in perdure.toml, ``PERDURE_SITE_...``. What none says is found in
the site.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.session import Session
from perdure.errors import SourceUnusable, UsageError

if TYPE_CHECKING:
    from perdure.config.site import SiteSection
    from perdure.dropin.recipe.part import Part
    from perdure.dropin.recipe.settling import Around

_MOST_BYTES = 1 << 20


def load_part(session: Session, file: Path | None, folder: Path | None) -> Part:
    """Give the settings to work with. Raises UsageError, SourceUnusable."""
    from perdure.dropin.recipe.part import Part

    if file is not None:
        data = _read(file)
        if data is None:
            raise UsageError(f"{file} is missing", hint="run buildout again")
        return Part.decode(data, str(file))
    from perdure.dropin.recipe.settling import settle

    options = site_options(session, folder or Path())
    return settle(options, _around(session, options, folder))


def site_folder(session: Session, folder: Path | None) -> Path:
    """Say where the site is: what is told, or the folder of its configuration, or the current one."""
    told = session.config.site.base_dir
    file = session.settings.configuration.file
    beside = file.parent if file and "site" in _sections(session) else None
    return (folder or told or beside or Path()).absolute()


def _sections(session: Session) -> set[str]:
    return {path.partition(".")[0] for path in session.settings.configuration.given}


def site_options(session: Session, folder: Path) -> SiteSection:
    """Put together what is said in all places."""
    import msgspec

    from perdure.dropin.recipe.options import declared, read_options

    texts = _foreign(folder, session.settings.environment)
    options = read_options(texts)
    base = folder.absolute()
    known = declared()
    relative = {
        name: base / value
        for name in texts
        if name in known and isinstance(value := getattr(options, name), Path)
    }
    options = msgspec.structs.replace(options, **relative)
    given = session.settings.configuration.given
    ours: dict[str, Any] = {
        key.field: given[key.path].value for key in known.values() if key.path in given
    }
    assert session.config  # what is wrong with it is said first
    return msgspec.structs.replace(options, **ours)


def _foreign(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Give what stands under the names of other tools. Raises UsageError."""
    from perdure.dropin.recipe.aliases import from_environment, from_table, parse_dotenv

    project = folder / "pyproject.toml"
    found: dict[str, str] = {}
    if data := _read(project):
        try:
            table = tomllib.loads(data.decode()).get("tool", {}).get("collective-backup", {})
        except (ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"{project} cannot be read: {error}") from None
        found |= from_table(table, f"{project}, [tool.collective-backup]")
    dotenv = _read(folder / ".env")
    said = parse_dotenv(dotenv.decode("utf-8", "replace")) if dotenv else {}
    return found | from_environment({**said, **environment})


def _around(session: Session, options: SiteSection, folder: Path | None) -> Around:
    """Find the site, as far as its options do not say all."""
    from perdure.dropin.recipe.settling import Around
    from perdure.site import FILESTORAGE, MAIN, discover

    base = (folder or options.base_dir or site_folder(session, None)).absolute()
    try:
        site = discover(base, session.settings.environment)
    except SourceUnusable:
        if not (options.datafs or options.var_dir or options.only_blobs):
            raise  # it may be that all is lost and to be restored, but not to where
        var = options.var_dir or base / "var"
        return Around(base, var, None, var / "blobstorage")
    files = [each for each in site.storages if each.kind == FILESTORAGE and each.path]
    for each in site.storages:
        if each.kind != FILESTORAGE and not options.only_blobs:
            session.output.warning(
                f"{each.name} is no FileStorage ({each.origin}): perdure backup can take it, files cannot"
            )
    main = next((each for each in files if each.name == MAIN), None)
    var = _var_of(main.path, site.root) if main and main.path else site.root / "var"
    if options.datafs is not None:
        return Around(base, var, None, main.blobs if main else None)
    more = {each.name: (each.path, each.blobs) for each in files if each.name != MAIN and each.path}
    return Around(
        base, var, main.path if main else None, main.blobs if main else None, additional=more
    )


def _var_of(datafs: Path, root: Path) -> Path:
    """Give the folder that holds ``filestorage``, where there is one."""
    inside = datafs.parent
    return inside.parent if inside.name == "filestorage" else root / "var"


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is too large to be what it should be")
    return data
