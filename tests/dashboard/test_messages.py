"""Everything that a person reads is in Japanese too: no message is missing, doubtful, or not compiled.

Messages are looked for in the sources as Django's own tool would, but without gettext, so it runs everywhere.
"""

import ast
import gettext
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.utils.translation.template import templatize

ROOT = settings.BASE_DIR
FOLDER = ROOT / "locale" / "ja" / "LC_MESSAGES"
CODE = ("accounts", "dashboard", "gateway")
ONE = {"_", "gettext", "gettext_lazy", "gettext_noop"}
SEVERAL = {"ngettext", "ngettext_lazy"}
IN_TEMPLATES = re.compile(r"""\b(n?gettext|_)\(\s*(u?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))""", re.DOTALL)
IN_SCRIPTS = re.compile(r"""\bn?gettext\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def in_python() -> Iterator[str]:
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield from said_by(node)


def said_by(node: ast.AST) -> Iterator[str]:
    """The message of a call such as `_("…")`; of words alone, as a translation of anything else cannot be."""
    if not isinstance(node, ast.Call) or not node.args:
        return
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0]
    if called in ONE | SEVERAL and isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield first.value


def in_templates() -> Iterator[str]:
    for path in (ROOT / "templates").rglob("*.html"):
        for _name, literal in IN_TEMPLATES.findall(templatize(path.read_text(encoding="utf-8"))):
            yield ast.literal_eval(literal)


def in_scripts() -> Iterator[str]:
    for path in (ROOT / "static").glob("*.js"):
        for literal in IN_SCRIPTS.findall(path.read_text(encoding="utf-8")):
            yield ast.literal_eval(literal)


def entries(path: Path) -> dict[str, tuple[list[str], bool, str]]:
    """Of a .po: the translations of each message, whether they are doubtful, its plural. No head.

    A message with a context is named as in a compiled file.
    """
    found = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        words: dict[str, str] = {}
        at = ""
        for line in lines:
            name, _, rest = line.partition(" ") if line.startswith("msg") else (at, "", line)
            at = name
            words[at] = words.get(at, "") + ast.literal_eval(rest)
        if words.get("msgid"):
            told = [text for name, text in words.items() if name.startswith("msgstr")]
            name = "\x04".join([words[each] for each in ("msgctxt", "msgid") if each in words])
            is_fuzzy = bool(re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE))
            found[name] = (told, is_fuzzy, words.get("msgid_plural", ""))
    return found


DOMAINS = {"django": (in_python, in_templates), "djangojs": (in_scripts,)}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_message_of_the_sources_is_translated(domain):
    known = entries(FOLDER / f"{domain}.po")
    wanted = {text for source in DOMAINS[domain] for text in source() if text}

    assert len(wanted) > 10
    assert sorted(wanted - known.keys()) == []
    assert sorted(text for text in wanted if known[text][1] or not all(known[text][0])) == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_compiled_is_what_was_written(domain):
    with (FOLDER / f"{domain}.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)

    for text, (told, is_fuzzy, _plural) in entries(FOLDER / f"{domain}.po").items():
        if not is_fuzzy and all(told):
            assert told[0] in (compiled.gettext(text), compiled.ngettext(text, text, 1))


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_translation_has_the_same_places_for_values(domain):
    places = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}")
    for text, (told, _is_fuzzy, plural) in entries(FOLDER / f"{domain}.po").items():
        wanted = set(places.findall(text + plural))
        assert all(set(places.findall(each)) == wanted for each in told if each), text


def test_scripts_are_given_their_japanese(client):
    told = entries(FOLDER / "djangojs.po")
    text, (translations, *_) = next((key, value) for key, value in told.items() if all(value[0]))
    answer = client.get("/words.js", headers={"accept-language": "ja"}).content.decode()

    assert json.dumps(translations[0])[1:-1] in answer, text
