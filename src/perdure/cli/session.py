"""One command's work on a repository: the store, the password, the lock, in the right order."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from perdure.cli.options import Settings
from perdure.cli.output import Output
from perdure.cli.password import ATTEMPTS, ask_password, given_password
from perdure.cli.reaching import reach

if TYPE_CHECKING:
    from perdure.config.declaration import Config
    from perdure.repository import Lock, Owner, Repository
    from perdure.stores import Store

P = ParamSpec("P")
R = TypeVar("R")


class Session:
    """What a command is given: its settings, its output, and a way to the repository."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.output = Output(settings)

    @functools.cached_property
    def config(self) -> Config:
        """What perdure.toml and the environment say; warns of variables that mean nothing.

        Raises UsageError for what is wrong with them.
        """
        configuration = self.settings.configuration
        for warning in configuration.warnings:
            self.output.warning(warning)
        return configuration.require()

    def store(self) -> Store:
        """Give the place of the repository. Raises UsageError."""
        assert self.config  # what is wrong with it is said before anything is done
        return self.place(self.settings.location)

    def place(self, location: str) -> Store:
        """Give the store of a location, which need not be the repository's. Raises UsageError."""
        store = reach(location, self.settings.environment, self.output.warning, self.output.traffic)
        limit = self.settings.upload_limit
        if limit is None:
            return store
        from perdure.stores.wrappers import LimitedStore

        return LimitedStore(store, limit, time.sleep, time.monotonic)

    @contextmanager
    def repository(self, *, dry_run: bool = False) -> Iterator[Repository]:
        """Open the repository; with ``dry_run`` whatever is written to it is for this process only.

        Raises NoRepository, WrongPassword, UsageError, RepositoryDamaged, StoreError.
        """
        store = self.store()
        if dry_run:
            from perdure.stores.wrappers import DryRunStore

            store = DryRunStore(store)
        with closing(self._open(store)) as repository:
            yield repository

    @contextmanager
    def writing(
        self, *, exclusive: bool = False, dry_run: bool = False
    ) -> Iterator[tuple[Repository, Lock]]:
        """Open and lock the repository. Raises RepositoryLocked, and what `repository` raises."""
        with (
            self.repository(dry_run=dry_run) as repository,
            repository.lock(exclusive=exclusive, wait=self.settings.lock_wait) as lock,
        ):
            yield repository, lock

    @contextmanager
    def reading(self) -> Iterator[Repository]:
        """Open the repository, and lock it unless ``--no-lock`` was given."""
        with self.repository() as repository:
            if self.settings.no_lock:
                yield repository
                return
            with self._reading_lock(repository):
                yield repository

    def _reading_lock(self, repository: Repository) -> Lock:
        from perdure.errors import StoreError

        try:
            return repository.lock(wait=self.settings.lock_wait)
        except StoreError as error:
            raise StoreError(
                f"the repository cannot be locked: {error}",
                hint="--no-lock reads it without a lock",
            ) from error

    def owner(self) -> Owner:
        """Say who makes a key, and when."""
        from perdure.repository import Owner
        from perdure.repository.processes import host_name, user_name

        return Owner(user_name(), host_name(), now())

    def _open(self, store: Store) -> Repository:
        from perdure.errors import NoRepository, WrongPassword
        from perdure.repository import Repository

        cache = self.settings.cache
        password = given_password(self.settings)
        if password is not None:
            return Repository.open(store, password, cache=cache, clock=now)
        if not has_repository(store):
            # Said before a person types a password for nothing.
            raise NoRepository(
                f"there is no repository at {store.location}",
                hint="perdure init makes one; if it is on a disk that is mounted, is that mounted?",
            )
        for _ in range(ATTEMPTS - 1):
            try:
                return Repository.open(store, ask_password(), cache=cache, clock=now)
            except WrongPassword as error:
                self.output.warning(str(error))
        return Repository.open(store, ask_password(), cache=cache, clock=now)


def has_repository(store: Store) -> bool:
    """Tell whether there is a repository in a store. Raises StoreError."""
    from perdure.errors import NameNotFound
    from perdure.repository.repository import CONFIG

    try:
        store.size(CONFIG)
    except NameNotFound:
        return False
    return True


def now() -> datetime:
    """Tell the time: the one clock there is."""
    return datetime.now(UTC)


def with_session(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Give a command its session as first argument."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        session = Session(Settings.of(click.get_current_context()))
        try:
            return command(session, *args, **kwargs)
        finally:
            if session.output.traffic:
                session.output.detail(session.output.traffic.spoken())

    return wrapper
