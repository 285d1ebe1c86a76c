"""`docs/configuration.md` is held to the code: every variable, with its default, and nothing else."""

import ast
import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from dashboard.env import BASE_DIR, Env
from gateway import first_run, presets

ROWS = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \| (.*?) \| (.*) \|$", re.MULTILINE)
PAGE = (BASE_DIR / "docs" / "configuration.md").read_text()
DOCUMENTED = {name: (default, meaning) for name, default, meaning in ROWS.findall(PAGE)}
SETTINGS = {each.name.upper(): each for each in fields(Env)}
FIRST_RUN = {
    first_run.ADMIN_EMAIL: f"`{first_run.DEFAULT_EMAIL}`",
    first_run.ADMIN_PASSWORD: "made up",
}
NAMED_ELSEWHERE = {
    ("dashboard/env.py", "name"),  # the fields of Env
    ("gateway/presets.py", "name"),  # presets.VARIABLES
    ("gateway/first_run.py", "credential.env_var"),  # whatever a credential refers to
    ("gateway/credentials.py", "name"),  # the same
}


def as_written(default: Any) -> str:
    """A default as the page writes it, in the spelling that the variable takes."""
    if isinstance(default, Path):
        return f"`{default.relative_to(BASE_DIR)}`"
    if isinstance(default, bool):
        return f"`{int(default)}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    if isinstance(default, tuple):
        default = ",".join(default)
    return f"`{default}`" if default != "" else "none"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_is_on_the_page_with_its_default_and_meaning(setting: Field[Any]):
    name = setting.name.upper()

    assert DOCUMENTED.get(name) == (as_written(setting.default), setting.metadata["doc"])


@pytest.mark.parametrize("name", presets.VARIABLES)
def test_every_provider_variable_is_on_the_page(name: str):
    assert DOCUMENTED[name][0] == "none"


@pytest.mark.parametrize("name", FIRST_RUN)
def test_every_variable_of_the_first_run_is_on_the_page(name: str):
    assert DOCUMENTED[name][0] == FIRST_RUN[name]


def test_nothing_else_is_on_the_page():
    assert set(DOCUMENTED) == {*SETTINGS, *presets.VARIABLES, *FIRST_RUN}
    assert len(ROWS.findall(PAGE)) == len(DOCUMENTED)


def test_every_variable_that_the_code_reads_is_on_the_page():
    read = set(variables_read())
    named = {name for _, name in read - NAMED_ELSEWHERE}

    assert named
    assert named <= set(DOCUMENTED)


def test_every_vendor_of_the_presets_is_on_the_page():
    for vendor in presets.VENDORS:
        assert vendor.base_url in DOCUMENTED[vendor.env_var][1]


def variables_read() -> Iterator[tuple[str, str]]:
    """File and name of every look-up in something called environ; an expression where it is no constant."""
    for room in ("dashboard", "gateway", "accounts"):
        for path in (BASE_DIR / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            constants = dict(constants_of(tree))
            for key in keys_asked_for(tree):
                yield (
                    str(path.relative_to(BASE_DIR)),
                    constants.get(ast.unparse(key), ast.unparse(key).strip("'")),
                )


def constants_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield ast.unparse(node.targets[0]), node.value.value


def keys_asked_for(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value) and isinstance(node.ctx, ast.Load):
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asks = node.func.attr == "get" and is_environ(node.func.value)
            if asks or node.func.attr == "getenv":
                yield node.args[0]


def is_environ(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[-1] == "environ"
