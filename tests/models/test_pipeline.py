"""The protocol of a pipeline: what all families have, and all that is used of one."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from erasebench.models.pipeline import Pipeline, part_of

ROOT = Path(__file__).parents[2]
MEMBERS = {name for name in (*vars(Pipeline), *Pipeline.__annotations__) if not name.startswith("_")} | {
    "_execution_device",
    "__call__",
}


def used(folder: str) -> dict[str, str]:
    """What the code reads of anything called ``pipe``, and the last place of each; what it asks for by name is not in it."""
    places = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asked = {
            ast.unparse(node.args[1]).strip("'")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "pipe":
                places["__call__"] = f"{path.relative_to(ROOT)}:{node.lineno}"
            if not isinstance(node, ast.Attribute) or node.attr in asked:
                continue
            if ast.unparse(node.value).split(".")[-1] in ("pipe", "_pipe"):
                places[node.attr] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return places


@pytest.mark.parametrize("family", ["", "_sd2", "_sdxl", "_sd3", "_flux"])
def test_the_pipelines_of_all_families_fit(request, family):
    assert isinstance(request.getfixturevalue(f"tiny_random{family}_pipe"), Pipeline)


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_nothing_in_it_is_without_a_user(member):
    assert member in used("erasebench") | used("methods"), f"{member}: nobody uses it; take it out of the protocol"


@pytest.mark.parametrize("folder", ["erasebench", "methods", "metrics"])
def test_nothing_else_is_used(folder):
    """The denoiser and what one family alone has are asked for by name; a type checker does not see the plugins."""
    assert {name: place for name, place in used(folder).items() if name not in MEMBERS} == {}


def test_a_part_that_a_family_lacks_is_none(tiny_random_pipe, tiny_random_flux_pipe):
    assert part_of(tiny_random_pipe, "transformer") is None
    assert part_of(tiny_random_flux_pipe, "transformer") is tiny_random_flux_pipe.transformer


def test_something_else_is_no_pipeline(tiny_random_pipe):
    lacking = {name: None for name in MEMBERS - {"encode_prompt"}}
    assert not isinstance(SimpleNamespace(**lacking), Pipeline)
