"""A small content management system on ZODB, and the life that its users lead.

The classes exist for benchmarks only: a backup must never need them. What they write resembles a
Plone site: many small content objects with annotations and a workflow history, and a catalogue of
BTrees whose buckets are written again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import transaction
from BTrees.IIBTree import IIBTree, IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OIBTree import OIBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from persistent.mapping import PersistentMapping

from bench.prose import Prose

STATES = ("private", "pending", "published", "published", "archived")


class Content(Persistent):  # type: ignore[misc]
    """A document of the site."""


class Folder(Persistent):  # type: ignore[misc]
    """A container: a BTree of names, and a count beside it."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.tree = OOBTree()
        self.count = Length()


class Version(Persistent):  # type: ignore[misc]
    """What a document was before an edit."""


class Comment(Persistent):  # type: ignore[misc]
    """What a visitor said below a document."""


class Member(Persistent):  # type: ignore[misc]
    """A person who logs in."""


class Catalog(Persistent):  # type: ignore[misc]
    """Indexes over all content, each a BTree (or two)."""

    def __init__(self) -> None:
        self.paths, self.metadata, self.docwords = IOBTree(), IOBTree(), IOBTree()
        self.rids, self.uuids = OIBTree(), OIBTree()
        self.modified, self.modified_of = IIBTree(), OOBTree()
        self.states, self.subjects, self.words = OOBTree(), OOBTree(), IOBTree()
        self.state_of = IOBTree()
        self.length, self.changes = Length(), Length()


@dataclass
class Memory:
    """What the site's users remember between transactions: enough to continue after a restart."""

    rng: Random
    now: datetime
    documents: list[tuple[str, str, int]] = field(default_factory=list)  # folder, name, rid
    next_rid: int = 1
    subjects: list[str] = field(default_factory=list)


class Life:
    """Users and editors of one site. Each deed is one transaction."""

    def __init__(self, root: Any, prose: Prose, memory: Memory, undo: Callable[[], None]) -> None:
        self.root, self.prose, self.memory, self.undo = root, prose, memory, undo
        self.rng = memory.rng
        self.deeds = (
            (self.edit, 51),
            (self.log_in, 12),
            (self.comment, 12),
            (self.change_state, 8),
            (self.publish_new, 8),
            (self.count_hits, 4),
            (self.delete, 2),
            (self.regret, 2),
            (self.regret_new, 1),
            (self.reindex, 2),
        )
        self._names = [deed for deed, _ in self.deeds]
        self._weights = [weight for _, weight in self.deeds]

    def found(self, folders: int) -> None:
        """Make the empty site."""
        root, rng = self.root, self.rng
        self.memory.subjects = [self.prose.title(rng) for _ in range(400)]
        root["folders"], root["members"], root["catalog"] = OOBTree(), OOBTree(), Catalog()
        root["settings"] = PersistentMapping(
            {f"option {n}": self.prose.title(rng) for n in range(80)}
        )
        root["hits"] = OOBTree()
        for number in range(folders):
            root["folders"][f"folder-{number:03}"] = Folder(f"folder-{number:03}")
        for number in range(300):
            member = Member()
            member.id, member.name = f"member{number}", self.prose.title(rng)
            member.last_login, member.properties = (
                self.memory.now,
                {"email": f"m{number}@example.org"},
            )
            root["members"][member.id] = member
        self._commit("/setup", "Site created")

    def do_something(self) -> None:
        """One transaction of everyday life."""
        self.rng.choices(self._names, self._weights)[0]()

    def import_batch(self) -> None:
        """Bring in a batch of documents from elsewhere."""
        for _ in range(self.rng.randint(10, 60)):
            self.memory.documents.append(self._create())
        self._commit("/import", "Imported content", seconds=5)

    def publish_new(self) -> None:
        """An editor writes a document."""
        document = self._create()
        self.memory.documents.append(document)
        self._commit("/".join(document[:2]), "Added")

    def edit(self) -> None:
        """An editor changes a paragraph or two; often the former version is kept."""
        name = self._pick()
        document = self._load(name)
        if self.rng.random() < 0.5:
            version = Version()
            kept = document.__getstate__()
            version.__setstate__(
                {k: v for k, v in kept.items() if k not in ("annotations", "workflow")}
            )
            document.annotations[f"version-{document.version:04}"] = version
        document.version += 1
        added = self.prose.paragraph(self.rng)
        where = self.rng.randrange(len(document.text))
        if len(document.text) < 30 and self.rng.random() < 0.3:
            document.text = [*document.text[:where], added, *document.text[where:]]
        else:
            document.text = [*document.text[:where], added, *document.text[where + 1 :]]
        document.modified = self.memory.now
        self._index(document, name, added)
        self._commit("/".join(name[:2]) + "/edit", "Edited")

    def change_state(self) -> None:
        """A reviewer moves a document along its workflow."""
        name = self._pick()
        document = self._load(name)
        document.modified = self.memory.now
        self._transit(document)
        self._index(document, name, "")
        self._commit("/".join(name[:2]) + "/content_status_modify", "State changed")

    def comment(self) -> None:
        """A visitor says something."""
        name = self._pick()
        document = self._load(name)
        comment = Comment()
        comment.author, comment.created = self.prose.title(self.rng), self.memory.now
        comment.text = self.prose.paragraph(self.rng)
        document.annotations[f"comment-{self.memory.now:%Y%m%d%H%M%S%f}"] = comment
        self._commit("/".join(name[:2]) + "/add-comment", "")

    def log_in(self) -> None:
        """A member comes."""
        member = self.root["members"][f"member{self._zipf(300)}"]
        member.last_login = self.memory.now
        self._commit("/login", "", user=member.id)

    def count_hits(self) -> None:
        """A counter of each day and document is raised."""
        hits = self.root["hits"]
        for _ in range(self.rng.randint(1, 6)):
            folder, name, _ = self._pick()
            length = hits.setdefault(f"{self.memory.now:%Y-%m}/{folder}/{name}", Length())
            length.change(1)
        self._commit("/hits", "")

    def delete(self) -> None:
        """An editor removes a document."""
        position = self._zipf(len(self.memory.documents))
        folder, name, rid = self.memory.documents.pop(position)
        container, catalog = self.root["folders"][folder], self.root["catalog"]
        document = container.tree.pop(name)
        container.count.change(-1)
        path = catalog.paths.pop(rid)
        del catalog.rids[path], catalog.metadata[rid], catalog.docwords[rid]
        del catalog.uuids[document.uuid]
        catalog.modified.pop(rid, None)
        catalog.states[catalog.state_of.pop(rid)].remove(rid)
        for subject in document.subject:
            catalog.subjects[subject].remove(rid)
        catalog.length.change(-1)
        self._commit(f"/{folder}", f"Deleted {name}")

    def regret(self) -> None:
        """An edit is undone at once."""
        self.edit()
        self.undo()

    def regret_new(self) -> None:
        """A new document is undone at once, which leaves records of objects that are no more."""
        self._create()
        self._commit("/folder/add", "Added")
        self.undo()

    def reindex(self) -> None:
        """A handful of neighbours gets new metadata."""
        start = self._zipf(len(self.memory.documents))
        for name in self.memory.documents[start : start + self.rng.randint(20, 150)]:
            self._index(self._load(name), name, "")
        self._commit("/portal_catalog/reindex", "Reindexed")

    def _create(self) -> tuple[str, str, int]:
        rng, memory = self.rng, self.memory
        folder = f"folder-{self._zipf(len(self.root['folders'])):03}"
        rid = memory.next_rid
        memory.next_rid += 1
        document = Content()
        title = self.prose.title(rng)
        name = f"{title.lower().replace(' ', '-')}-{rid}"
        document.id, document.title = name, title
        document.portal_type, document.language, document.version = "Document", "en", 1
        document.description = self.prose.sentence(rng)
        document.text = self.prose.text(rng)
        document.creators = (f"member{self._zipf(300)}",)
        document.created = document.modified = memory.now
        document.subject = tuple(
            sorted({memory.subjects[self._zipf(400)] for _ in range(rng.randint(0, 4))})
        )
        document.uuid = UUID(int=rng.getrandbits(128), version=4).hex
        document.roles = {document.creators[0]: ["Owner"]}
        document.annotations = OOBTree({"settings": PersistentMapping(self._settings(document))})
        document.workflow = PersistentMapping()
        self._transit(document)
        container = self.root["folders"][folder]
        document.parent = container
        container.tree[name] = document
        container.count.change(1)
        catalog = self.root["catalog"]
        path = f"/site/{folder}/{name}"
        catalog.paths[rid], catalog.rids[path], catalog.uuids[document.uuid] = path, rid, rid
        for subject in document.subject:
            catalog.subjects.setdefault(subject, IITreeSet()).insert(rid)
        catalog.length.change(1)
        self._index(document, (folder, name, rid), document.text[0])
        return folder, name, rid

    def _settings(self, document: Any) -> dict[str, object]:
        keys = (
            "layout",
            "lead_image",
            "seo_title",
            "seo_description",
            "related",
            "portlets",
            "tiles",
        )
        chosen = self.rng.sample(keys, self.rng.randint(2, len(keys)))
        return {f"site.{key}": self.prose.sentence(self.rng) for key in chosen} | {
            "of": document.uuid
        }

    def _transit(self, document: Any) -> None:
        event = {
            "action": "change",
            "actor": f"member{self._zipf(300)}",
            "time": self.memory.now,
            "comments": self.prose.sentence(self.rng) if self.rng.random() < 0.6 else "",
            "review_state": self.rng.choice(STATES),
        }
        document.workflow["site_workflow"] = (
            *document.workflow.get("site_workflow", ())[-20:],
            event,
        )

    def _index(self, document: Any, name: tuple[str, str, int], text: str) -> None:
        folder, _, rid = name
        catalog = self.root["catalog"]
        state = document.workflow["site_workflow"][-1]["review_state"]
        minute = int(document.modified.timestamp()) // 60
        catalog.metadata[rid] = (
            document.id,
            document.title,
            document.description,
            document.portal_type,
            document.creators,
            document.created.timestamp(),
            minute,
            state,
            document.subject,
            f"/site/{folder}/{document.id}",
            document.uuid,
        )
        catalog.modified[rid] = minute
        catalog.modified_of.setdefault(minute // 1440, IITreeSet()).insert(rid)
        former = catalog.state_of.get(rid)
        if former != state:
            if former is not None:
                catalog.states[former].remove(rid)
            catalog.states.setdefault(state, IITreeSet()).insert(rid)
            catalog.state_of[rid] = state
        if text:
            numbers = self.prose.numbers
            found = sorted(
                {numbers[w] for w in text[3:-5].lower().replace(".", "").split() if w in numbers}
            )
            catalog.docwords[rid] = b"".join(number.to_bytes(2, "big") for number in found)
            for number in found[-3:]:
                self._post(number, rid, len(text) % 7 + 1)
        catalog.changes.change(1)

    def _post(self, word: int, rid: int, weight: int) -> None:
        """Note where a word occurs: a rare one in the bucket itself, a frequent one in a tree."""
        words = self.root["catalog"].words
        found = words.get(word, {})
        if isinstance(found, dict):
            found = {**found, rid: weight}
            words[word] = IIBTree(found) if len(found) > 12 else found
        else:
            found[rid] = weight

    def _zipf(self, count: int) -> int:
        return int(count ** self.rng.random()) - 1

    def _pick(self) -> tuple[str, str, int]:
        documents, chance = self.memory.documents, self.rng.random()
        if chance < 0.6:
            return documents[self._zipf(len(documents))]
        if chance < 0.85:
            return documents[-1 - self._zipf(len(documents))]
        return self.rng.choice(documents)

    def _load(self, name: tuple[str, str, int]) -> Any:
        return self.root["folders"][name[0]].tree[name[1]]

    def _commit(self, path: str, note: str, user: str = "", seconds: float = 300) -> None:
        current = transaction.get()
        current.setUser(user or f"member{self._zipf(300)}", "/site/acl_users")
        if self.rng.random() < 0.05:
            current.setExtendedInfo("request", path)
        current.note(f"{path}\n\n{note}" if note else path)
        current.commit()
        self.memory.now += timedelta(seconds=self.rng.expovariate(1 / seconds))


BEGINNING = datetime(2024, 3, 1, 8, tzinfo=UTC)
