"""What runs code, starts processes or trusts text is nowhere where a request or a task can reach it.

Read from the syntax of every module, and from who imports whom. What is left is written out below with its
reason, and what starts processes must not be imported by anything that serves.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from django.conf import settings

from dashboard.env import BASE_DIR

ROOMS = ("dashboard", "gateway", "accounts")
SERVING = (
    *("dashboard.urls", "dashboard.consumers", "dashboard.api", "dashboard.asgi", "dashboard.celery"),
    *("accounts.urls", "gateway.asgi", "gateway.endpoints", "gateway.tasks", "gateway.lifespan"),
)
"""Where requests, sockets and tasks come in."""

BUILT_IN = {"eval", "exec", "compile", "__import__"}
MODULES = {
    *("pickle", "cPickle", "dill", "shelve", "marshal", "yaml", "code", "codeop", "runpy", "pty"),
    *("subprocess", "multiprocessing", "ctypes", "commands"),
}
OF_OS = re.compile(r"os\.(system|popen|startfile|fork|forkpty|exec[lvpe]+|spawn[lvpe]+|posix_spawnp?)$")
UNESCAPED = {"mark_safe", "SafeString", "SafeText"}
SQL = {"execute", "executemany", "raw", "RawSQL", "extra"}

STARTS_PROCESSES = {
    "gateway.children": "starts and ends what `up` keeps beside the server",
    "gateway.server": "starts the workers of `up`",
    "gateway.management.commands.up": "is the command that starts them, with arguments of its own",
    "gateway.management.commands.simulate_upstream": "ends with the process that started it, by prctl",
}
"""Modules with reason; nothing that serves may import them."""
ALLOWED = {
    ("dashboard.consumers", "import_module(settings.SESSION_ENGINE)"): "a setting of Django's",
    ("accounts.sessions", "import_module(settings.SESSION_ENGINE)"): "a setting of Django's",
    ("gateway.memory", "import ctypes"): "one call of mallopt(3), with two constants",
}
SAFE_IN_TEMPLATES = {
    ("templates/form/field.html", "field.help_text"): "written in our own forms, and in Django's",
}
SQL_MADE_OF_CONSTANTS = {
    "dashboard.patience": "a number of seconds, through int()",
    "gateway.patience": "a constant of the module",
    "gateway.ledger.partitions": "names of tables made of our own and of a month",
    "gateway.ledger.retention": "the name of a model's table",
    "gateway.ledger.holdings": "as many placeholders as there are values",
    "gateway.ledger.marks": "the name of a table of our own",
    "gateway.ledger.rollups": "names of tables and columns of our own, and placeholders",
    "gateway.ledger.inserting": "the name of a table of our own",
}
"""Modules with an f-string in a statement, and what stands in it: never what a request says."""


def modules() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((BASE_DIR / room).rglob("*.py")):
            if "migrations" not in path.parts:
                parts = path.relative_to(BASE_DIR).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def findings(source: str) -> list[str]:
    """What a module does of all this, each as it is written there."""
    tree = ast.parse(source)
    return [what for node in ast.walk(tree) for what in (*_imported(node), *_called(node))]


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [each.name for each in node.names]
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        names = [module, *(f"{module}.{each.name}" for each in node.names)]
    else:
        return
    for name in names:
        if name.partition(".")[0] in MODULES or OF_OS.match(name):
            yield f"import {name}"


def _called(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    first = node.args[0] if node.args else None
    if name in BUILT_IN or OF_OS.match(name):
        yield f"{name}()"
    if last == "import_module" and not isinstance(first, ast.Constant):
        yield f"import_module({ast.unparse(first) if first else ''})"
    if last in UNESCAPED | {"Template", "from_string"} and not isinstance(first, ast.Constant):
        yield f"{last}({ast.unparse(first) if first else ''})"
    if last in SQL and _is_put_together(first):
        yield "SQL put together"
    if any(each.arg == "shell" for each in node.keywords):
        yield "shell="


def _is_put_together(statement: ast.expr | None) -> bool:
    """By an f-string with something in it, by + with a variable, by % or by format()."""
    if isinstance(statement, ast.JoinedStr):
        return any(isinstance(each, ast.FormattedValue) for each in statement.values)
    if isinstance(statement, ast.BinOp):
        return any(isinstance(each, ast.Name | ast.Attribute | ast.Call) for each in ast.walk(statement))
    return isinstance(statement, ast.Call) and ast.unparse(statement.func).endswith(".format")


def allowed(module: str, what: str) -> bool:
    if module in STARTS_PROCESSES and what.startswith("import "):
        return True
    return (module, what) in ALLOWED or (what == "SQL put together" and module in SQL_MADE_OF_CONSTANTS)


def reached_from(graph: grimp.ImportGraph, entries: tuple[str, ...]) -> set[str]:
    """Every module of ours that an entry imports, however far away."""
    return {found for entry in entries for found in graph.find_upstream_modules(entry)} | set(entries)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOMS)


def test_no_module_runs_code_starts_processes_or_trusts_text():
    found = [
        f"{module}: {what}"
        for module, path in modules()
        for what in findings(path.read_text())
        if not allowed(module, what)
    ]
    assert found == []


def test_no_template_shows_a_variable_as_it_is():
    unescaped = re.compile(r"\{\{\s*([^|}\s]+)[^}]*\|\s*safe(?:seq)?\b|\{%\s*autoescape\s+(off)")
    pages = [*(BASE_DIR / "templates").rglob("*.html"), *(BASE_DIR / "templates").rglob("*.txt")]
    found = {
        (str(page.relative_to(BASE_DIR)), each[1] or each[2])
        for page in pages
        if page.suffix == ".html"
        for each in unescaped.finditer(page.read_text())
    }
    assert found == set(SAFE_IN_TEMPLATES)


@pytest.mark.parametrize("module", STARTS_PROCESSES)
def test_nothing_that_serves_imports_what_starts_processes(graph, module):
    assert module not in reached_from(graph, SERVING)


def test_every_exception_is_still_needed():
    by_module = {module: findings(path.read_text()) for module, path in modules()}

    assert all(by_module[module] for module in STARTS_PROCESSES)
    assert all(what in by_module[module] for module, what in ALLOWED)
    assert all("SQL put together" in by_module[module] for module in SQL_MADE_OF_CONSTANTS)


def test_what_serves_was_looked_at(graph):
    """An import graph without its edges would find nothing."""
    reached = reached_from(graph, SERVING)

    assert {"dashboard.views", "gateway.relay.pipeline", "gateway.outgoing", "accounts.models"} <= reached


def test_tasks_are_told_in_json_alone():
    assert settings.CELERY_ACCEPT_CONTENT == ["json"]
    assert settings.CELERY_TASK_SERIALIZER == "json"
    assert "pickle" not in str(settings.CACHES).lower()
    assert getattr(settings, "SESSION_SERIALIZER", "").endswith("JSONSerializer")


@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ("eval(text)", "eval()"),
        ("exec(text)", "exec()"),
        ("compile(text, '', 'exec')", "compile()"),
        ("__import__(name)", "__import__()"),
        ("import pickle", "import pickle"),
        ("from marshal import loads", "import marshal"),
        ("from subprocess import run as r", "import subprocess"),
        ("import yaml", "import yaml"),
        ("import os\nos.system(text)", "os.system()"),
        ("import os\nos.popen(text)", "os.popen()"),
        ("import os\nos.execvp(text, [])", "os.execvp()"),
        ("from os import system", "import os.system"),
        ("importlib.import_module(name)", "import_module(name)"),
        ("django.template.Template(text)", "Template(text)"),
        ("engine.from_string(text)", "from_string(text)"),
        ("mark_safe(text)", "mark_safe(text)"),
        ("run(text, shell=True)", "shell="),
        ("cursor.execute(f'SELECT {text}')", "SQL put together"),
        ("cursor.execute('SELECT ' + text)", "SQL put together"),
        ("cursor.execute('SELECT %s' % text)", "SQL put together"),
        ("Entry.objects.raw('SELECT {}'.format(text))", "SQL put together"),
    ],
)
def test_what_is_planted_is_found(planted, what):
    assert what in findings(f"def view(text, name):\n    {planted.splitlines()[-1]}\n{planted}\n")


def test_an_import_that_is_planted_is_found(tmp_path, monkeypatch):
    """A view that imports, by way of another module, what starts processes."""
    for name, text in {
        "__init__": "",
        "urls": "from planted import views",
        "views": "from planted import up",
        "up": "import subprocess",
    }.items():
        (tmp_path / "planted").mkdir(exist_ok=True)
        (tmp_path / "planted" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    graph = grimp.build_graph("planted", cache_dir=None)

    assert "planted.up" in reached_from(graph, ("planted.urls",))
