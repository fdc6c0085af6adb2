"""The laws of the house, read off the syntax trees: floors, wings, who may use which library, no state."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import simllm

ROOT = Path(simllm.__file__).parent
FOLDERS = ("sim", "hwmodels", "kernels", "calibrate")

COMMANDS = (
    "cli_compare",
    "cli_fit_engine",
    "cli_goodput",
    "cli_ops",
    "cli_report",
    "cli_sweep",
    "cli_validate",
)

# Wings from the ground up: a module imports its own wing and wings on lower floors, nothing else of ours.
FLOORS = (
    ("errors", "hot_modules", "units", "version"),
    ("hwmodels",),
    ("kernels", "sim.spec", "sim.overrides", "sim.problems", "sim.request"),
    ("sim.policy", "sim.workload", "calibrate"),
    ("sim.pool",),
    ("sim.parallelism",),
    ("sim.step_models",),
    ("sim.deployment",),
    ("sim.scenario",),
    ("sim.world",),
    ("sim.outcome",),
    ("sim.replicas",),
    ("sim.run",),
    ("sim.validate", "sim.study"),
    COMMANDS,
    ("cli",),
    ("",),
)
FLOOR_OF = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings}

ABOVE_TIME = ("sim.run", "sim.validate", "sim.study", *COMMANDS, "cli", "calibrate")
LIBRARY_HOMES = {
    "simpy": ("sim.world", "sim.run"),
    "pandas": ("sim.outcome", *ABOVE_TIME),
    "torch": ("kernels", "calibrate"),
    "triton": ("kernels", "calibrate"),
    "typer": ("cli", *COMMANDS, "calibrate"),
}
EXTRAS = {"torch", "triton", "plotly", "ray"}
LAZY = {*EXTRAS, "pandas"}
# What a wing loads only where one of its commands runs: fitting loads optimisers that no simulation needs.
LAZY_WINGS = {
    ("cli", "calibrate"),
    ("cli_fit_engine", "sim.validate"),
    ("cli_goodput", "sim.study"),
    ("cli_report", "sim.outcome"),
    ("cli_sweep", "sim.study"),
}
FORBIDDEN = {"atexit", "pickle", "marshal", "shelve"}
MUTABLE_TYPES = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict", "bytearray"}
MUTATORS = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


class Import(NamedTuple):
    """One import of `target`, a full name: one of ours without `simllm.`, or a library's."""

    target: str
    line: int
    is_ours: bool
    is_typing: bool
    is_in_function: bool


@cache
def files() -> dict[str, Path]:
    """Returns the file of every module of the package by its name in it; the root is ''."""
    found = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return {_name(path): path for path in sorted(found) if path != ROOT / "setup.py"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Returns the syntax tree of every module by its name."""
    return {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in files().items()}


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Returns the imports of a module, those of types only and those inside functions marked."""
    return tuple(_imports(modules()[name], name, is_typing=False, is_in_function=False))


def _imports(node: ast.AST, name: str, *, is_typing: bool, is_in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target, is_ours in _targets(child, name):
                yield Import(target, child.lineno, is_ours, is_typing, is_in_function)
        guards_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(
            child, name, is_typing=is_typing or guards_types, is_in_function=is_in_function or is_function
        )


def _targets(node: ast.Import | ast.ImportFrom, name: str) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.removeprefix("simllm."), alias.name.split(".")[0] == "simllm"
        return
    if node.level:
        is_package = files()[name].name == "__init__.py"
        package = name.split(".") if is_package else name.split(".")[:-1]
        kept = package[: len(package) - (node.level - 1)]
        source, is_ours = ".".join([*filter(None, kept), *filter(None, [node.module])]), True
    else:
        source, is_ours = str(node.module).removeprefix("simllm."), str(node.module).split(".")[0] == "simllm"
    for alias in node.names:
        submodule = f"{source}.{alias.name}" if source else alias.name
        yield (submodule if is_ours and submodule in modules() else source), is_ours


def wing_of(name: str) -> str:
    """Returns the wing in which a module stands. Raises: LookupError if the plan has no place for it."""
    for wing in sorted(FLOOR_OF, key=len, reverse=True):
        if name == wing or (wing and name.startswith(f"{wing}.")):
            return wing
    raise LookupError(f"{name} stands on no floor")


def ours(name: str) -> Iterator[Import]:
    return (found for found in imports(name) if found.is_ours)


def test_every_module_stands_on_a_floor() -> None:
    assert len(modules()) > 50, "the tree was not found"
    for name in modules():
        # `sim/__init__.py` holds a sentence and is no wing of its own.
        assert imports(name) == () if name == "sim" else wing_of(name) in FLOOR_OF


def test_imports_point_down_only_those_of_types_included() -> None:
    wrong = [
        f"{name or 'simllm'}:{found.line} imports {found.target}"
        for name in modules()
        for found in ours(name)
        if wing_of(found.target) != wing_of(name)
        and FLOOR_OF[wing_of(found.target)] >= FLOOR_OF[wing_of(name)]
    ]
    assert wrong == []


def test_there_is_no_import_cycle() -> None:
    graph = {name: {found.target for found in ours(name) if not found.is_typing} for name in modules()}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(modules())


def test_only_extras_pandas_and_commands_of_their_own_are_imported_inside_functions() -> None:
    inside = [
        f"{name}:{found.line} imports {found.target}"
        for name in modules()
        for found in imports(name)
        if found.is_in_function and found.target.split(".")[0] not in LAZY and not is_lazy(name, found)
    ]
    assert inside == []


def is_lazy(name: str, found: Import) -> bool:
    """Returns whether a module may import inside a function what it does."""
    return (wing_of(name), wing_of(found.target)) in LAZY_WINGS or needs_extra(found)


def needs_extra(found: Import) -> bool:
    """Returns whether an import loads an optional extra, by itself or through others of ours."""
    if not found.is_ours:
        return found.target.split(".")[0] in EXTRAS
    return any(needs_extra(inner) for inner in imports(found.target) if not inner.is_in_function)


def test_each_library_stays_in_its_wing() -> None:
    strays = [
        f"{name}:{found.line} imports {found.target}"
        for name in modules()
        for found in imports(name)
        if not found.is_ours
        and (homes := LIBRARY_HOMES.get(found.target.split(".")[0])) is not None
        and wing_of(name) not in homes
    ]
    assert strays == []


def test_the_two_halves_meet_in_hwmodels_only() -> None:
    for name in modules():
        wings = {wing_of(found.target) for found in ours(name)}
        targets = {found.target for found in ours(name)}
        if name.startswith("sim"):
            assert not wings & {"kernels", "calibrate"}, name
        if name.startswith("calibrate"):
            assert not any(target.startswith("sim") for target in targets), name
        if name.startswith("kernels"):
            beyond = {t for t in targets if wing_of(t) == "hwmodels" and not t.startswith("hwmodels.ops")}
            assert not beyond, f"{name} may take only hwmodels.ops from hwmodels, not {beyond}"


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    assert [found for name in FLOORS[0] for found in ours(name)] == []


def test_no_module_keeps_mutable_state() -> None:
    wrong = [f"{name}:{found}" for name, tree in modules().items() for found in _module_state(tree)]
    assert wrong == []


def _module_state(tree: ast.Module) -> Iterator[str]:
    """Yields mutable values that are no constants, constants that something changes, and `global`."""
    constants = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and _is_mutable(getattr(node, "value", None)):
                constants.add(target.id)
                is_final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
                if not (target.id.isupper() or is_final or target.id == "__all__"):
                    yield f"{node.lineno} {target.id} is mutable and not named like a constant"
    for found in ast.walk(tree):
        if isinstance(found, ast.Global):
            yield f"{found.lineno} global"
        if (changed := _changed_name(found)) in constants:
            yield f"{ast.unparse(found)} changes {changed}"


def _is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in MUTABLE_TYPES
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def _changed_name(node: ast.AST) -> str | None:
    """Returns the name whose value `node` changes: by an item, or by a method that mutates."""
    changed: ast.expr | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        changed = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        changed = node.func.value
    return changed.id if isinstance(changed, ast.Name) else None


def test_importing_does_nothing_but_choose_twins_and_nothing_is_left_for_the_exit() -> None:
    chosen = ("", "prefer_compiled()")  # before any module is imported that has a compiled twin
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if (name, ast.unparse(node)) != chosen
    ]
    banned = [
        f"{name} {found.target}" for name in modules() for found in imports(name) if found.target in FORBIDDEN
    ]
    assert calls + banned == []


def test_nothing_that_is_read_is_evaluated() -> None:
    evaluating = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in evaluating
    ]
    assert calls == []
