"""A file with a decorator is found; unknown names and arguments are refused by name."""

import sys

import pytest
from worlds import expect

from gapzoo.core import GapzooError, Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Of a package made for this test, with one module that registers two entries."""
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from gapzoo.core import Registry\nSHAPES = Registry('shape', 'shapes')\n"
    )
    (package / "round.py").write_text(
        "from shapes import SHAPES\n"
        "@SHAPES.register('circle')\ndef circle(radius=1.0):\n    return ('circle', radius)\n"
        "@SHAPES.register('ball')\nclass Ball:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import shapes

    yield shapes.SHAPES
    for name in [n for n in sys.modules if n.split(".")[0] == "shapes"]:
        del sys.modules[name]


def test_a_file_that_is_merely_put_there_is_found(registry):
    assert registry.build("circle", radius=2.0) == ("circle", 2.0)
    assert list(registry) == ["ball", "circle"] and registry.names("c*") == ["circle"]
    assert "ball" in registry and "cube" not in registry


def test_unknown_names_and_arguments(registry):
    with expect(GapzooError, "no shape 'cirlce'; did you mean 'circle'?"):
        registry["cirlce"]
    with expect(GapzooError, "no shape 'zzz'; known: ball, circle"):
        registry.build("zzz")
    with expect(GapzooError, "shape 'circle'", "unexpected keyword argument 'diameter'"):
        registry.build("circle", diameter=1.0)


def test_a_name_is_given_once(registry):
    known = registry["ball"]
    with expect(GapzooError, "shape 'ball' is registered twice"):
        registry.register("ball")(lambda: None)
    assert registry.register("ball")(known) is known is registry["ball"]


def test_an_empty_registry_says_so(tmp_path, monkeypatch):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with expect(GapzooError, "no thing 'a'; known: none"):
        Registry("thing", "nothing")["a"]
