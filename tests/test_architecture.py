"""Dependencies point one way; optional and heavy packages stay out; house rules of the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gapzoo"
FILES = sorted(ROOT.rglob("*.py"))
LAYERS = (
    {"core", "speedy"},
    {"data", "denoisers", "diffusion", "forecasters", "evaluators"},
    {"training", "tasks", "baselines"},
    {
        "fit",
        "join",
        "measure",
        "prepare",
        "checking",
        "compare",
        "listing",
        "recipe",
        "checkpoint",
        "card",
        "hub",
    }
    | {"payoff", "leaderboard", "report", "demo"},
    {"commands"},
    {"cli", "__main__"},
)
"""Lowest first. A room imports from its own layer and those below; no two import each other."""
SIMULATOR = {"data/sources/speedy.py", "forecasters/speedy.py"}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def room_of(module: str) -> str:
    """The room of a dotted name: gapzoo.core.grid -> core; the package itself is its root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by a relative name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def edges() -> dict[str, set[str]]:
    """Room to the other rooms that it imports."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        inner = {room_of(m) for m in imports(file) if m.split(".")[0] == "gapzoo"}
        graph.setdefault(room(file), set()).update(inner - {room(file), "", "__version__"})
    return graph


def rank(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert found, f"gapzoo/{name} has no layer; give it one in {__file__}"
    return found[0]


def test_dependencies_point_down():
    graph = {name: targets for name, targets in edges().items() if name != "__init__"}
    wrong = [(a, b) for a, targets in graph.items() for b in targets if rank(b) > rank(a)]
    assert not wrong


def test_no_rooms_import_each_other_in_a_circle():
    graph = {k: set(v) for k, v in edges().items()}
    while graph:
        free = [name for name, targets in graph.items() if not targets & graph.keys()]
        assert free, f"a circle among {graph}"
        graph = {k: v for k, v in graph.items() if k not in free}


def test_core_knows_no_other_room():
    assert edges()["core"] == set()


def test_only_its_source_and_its_forecaster_import_the_simulator():
    users = {
        name_of(f)
        for f in FILES
        if room(f) != "speedy" and any(m.startswith("gapzoo.speedy") for m in imports(f))
    }
    assert users == SIMULATOR
    core = ("jax", "jcm", "dinosaur")
    foreign = {name_of(f) for f in FILES for m in imports(f) if m.split(".")[0] in core}
    assert all(name.startswith("speedy/") for name in foreign), foreign


def run(code: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("gapzoo", ("torch", "jax", "numpy", "pandas")),
        ("gapzoo.cli", ("jax", "jcm", "lightning", "timm", "torchvision", "xarray", "zarr")),
    ],
)
def test_imports_are_light(module, unwanted):
    heavy = run(f"import sys, {module}; print([m for m in {unwanted} if m in sys.modules])")
    assert heavy == "[]"


def test_everything_but_the_simulator_works_without_it():
    """Its packages hidden: all lists are whole, and SPEEDY's own use names the extra."""
    code = """
import sys
for name in ("jax", "jcm", "dinosaur"):
    sys.modules[name] = None
from gapzoo.core import GapzooError
from gapzoo.data import SOURCES
from gapzoo.forecasters import FORECASTERS
assert "speedy" in SOURCES and {"speedy", "convcast"} <= set(FORECASTERS)
try:
    SOURCES.build("speedy").spec()
except GapzooError as error:
    print(error)
"""
    assert "gapzoo[speedy]" in run(code)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_house_rules(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 400, "split it"
    tree = ast.parse(text)
    assert ast.get_docstring(tree) is not None, "no module docstring"
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    called = {f.id for f in calls if isinstance(f, ast.Name)}
    assert not called & {"print", "eval", "exec", "compile", "__import__"}
    packages = {m.split(".")[0] for m in imports(file)}
    assert not packages & {"pickle", "cloudpickle", "dill", "shelve"}
    for node in ast.walk(tree):
        unsafe = isinstance(node, ast.keyword) and node.arg in ("weights_only", "allow_pickle")
        if unsafe and isinstance(node.value, ast.Constant):
            assert node.value.value is (node.arg == "weights_only"), f"line {node.value.lineno}"
        loads = isinstance(node, ast.Attribute) and node.attr == "load"
        if loads and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert "weights_only=True" in ast.get_source_segment(text, _call(tree, node))


def _call(tree: ast.AST, attribute: ast.Attribute) -> ast.Call:
    return next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.func is attribute)


def test_every_room_has_its_tests():
    """Tests mirror the source: a room without any is a hole."""
    rooms = {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    tested = {p.parent.name for p in Path(__file__).parent.rglob("test_*.py")}
    assert rooms - tested <= {"report"}
