"""The shape of the code, as docs/design has it: which layer may import which, and what each may touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

# Each layer, from the lowest to the highest, and the layers below it that it may import.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "formats": {"errors", "model"},
    "plan": {"errors", "model", "formats"},
    "retention": {"errors", "model", "formats"},
    "config": {"errors"},
    "pool": set(),
    "stores": {"errors", "model"},
    "repository": {"errors", "model", "formats", "stores", "pool"},
    "sources": {"errors", "model", "formats", "pool"},
    "history": {"errors", "model", "formats", "plan", "pool", "repository", "sources"},
    "trees": {
        *("errors", "model", "formats", "plan", "pool", "repository", "sources", "history"),
    },
    "use case": {
        *(
            "errors",
            "model",
            "config",
            "formats",
            "plan",
            "retention",
            "pool",
            "repository",
            "sources",
            "stores",
            "history",
            "trees",
        ),
    },
    "dropin": {
        *("errors", "model", "config", "formats", "plan", "retention", "pool"),
        *("repository", "sources", "stores", "history", "use case"),
    },
    "cli": {
        *("errors", "model", "config", "formats", "retention"),
        *("repository", "sources", "stores", "use case", "dropin"),
    },
}
PURE = {"errors", "model", "formats", "plan", "retention"}
WORLD = {"os", "io", "pathlib", "time", "socket", "threading", "subprocess", "shutil", "logging"}
MOST_LINES, MOST_BODY_LINES = 450, 60


def layer_of(module: str) -> str:
    """The layer of a module: its first part below the package, or "use case"."""
    part = [*module.split("."), ""][1]
    if part == "dropin" and module.endswith(".command"):  # the command line of an older tool
        return "cli"
    return part if part in LAYERS else "cli" if part == "__main__" else "use case"


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports_of(module: str, *, run: bool = True) -> Iterator[str]:
    """All that a module imports, wherever in it; ``run``: without what is for type checkers alone."""
    tree = tree_of(module)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if run and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(inner for part in node.body for inner in ast.walk(part))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def ours(module: str) -> set[str]:
    return {name for name in imports_of(module) if name in MODULES and name != module}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    layer = layer_of(module)
    allowed = LAYERS[layer] | {layer}
    wrong = {name for name in ours(module) if name != "perdure" and layer_of(name) not in allowed}
    assert not wrong, f"{module} ({layer}) must not import {sorted(wrong)}"


def test_there_is_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        if module in done:
            return
        for name in sorted(ours(module) - {"perdure"}):
            if not name.startswith(f"{module}."):  # a package names what it consists of
                visit(name, (*path, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", [name for name in MODULES if layer_of(name) in PURE])
def test_decisions_and_formats_touch_nothing(module: str) -> None:
    assert not WORLD & {name.split(".")[0] for name in imports_of(module)}


@pytest.mark.parametrize("module", [name for name in MODULES if layer_of(name) != "cli"])
def test_only_the_command_line_knows_terminal_environment_clock_and_exit(module: str) -> None:
    forbidden = {"os.environ", "os.getenv", "sys.argv", "sys.exit", "datetime.now", "time.time"}
    used = {
        ast.unparse(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)
    }
    called = {
        node.func.id
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not forbidden & used
    assert not {"print", "input", "exit"} & called


def test_threads_are_made_in_one_place() -> None:
    makers = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node) in {"ThreadPoolExecutor", "ProcessPoolExecutor", "threading.Thread"}
    }
    assert makers == {"perdure.pool"}


def test_nothing_is_unpickled_or_evaluated() -> None:
    forbidden = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in forbidden, module
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, module


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    assert MODULES[module].read_text().count("\n") <= MOST_LINES
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.body[0].lineno < MOST_BODY_LINES, node.name


def test_no_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert not drawers & {part for module in MODULES for part in module.split(".")}
