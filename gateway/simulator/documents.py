"""A JSON document that fits a JSON Schema, in the simple cases. Pure.

Knows types, properties, required, items, enum, const, anyOf, oneOf, allOf, local $ref, and bounds.
Does not know patterns, formats or conditions: such values get a plain word.
"""

from typing import Any

Schema = dict[str, Any]

MAX_DEPTH = 12
OPTIONAL_DEPTH = 4
"""Deeper than this only required properties are filled in, so that a recursive schema ends."""


def document_for(schema: Any, word: str = "water") -> Any:
    """`word` is what strings are made of."""
    return _value(schema, schema if isinstance(schema, dict) else {}, word, 0)


def _value(schema: Any, root: Schema, word: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    match _type_of(schema):
        case "object":
            return _object(schema, root, word, depth)
        case "array":
            count = schema.get("minItems", 0) or min(1, schema.get("maxItems", 1))
            return [_value(schema.get("items", {}), root, word, depth + 1) for _ in range(count)]
        case "string":
            return _string(schema, word)
        case "integer":
            return int(_number(schema, 1))
        case "number":
            return _number(schema, 0.5)
        case "boolean":
            return True
        case _:
            return None


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow a local reference, take the first alternative, and lay all of `allOf` together."""
    for _ in range(MAX_DEPTH):
        if "$ref" in schema:
            schema = _at(root, schema["$ref"])
        elif "allOf" in schema:
            rest = {name: value for name, value in schema.items() if name != "allOf"}
            schema = _merged([rest, *schema["allOf"]], root)
        elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
            schema = alternatives[0]
        else:
            return schema
    return {}


def _merged(parts: list[Schema], root: Schema) -> Schema:
    merged: Schema = {}
    for part in parts:
        each = _resolved(part, root) if "allOf" not in part else part
        properties = {**merged.get("properties", {}), **each.get("properties", {})}
        required = [*merged.get("required", []), *each.get("required", [])]
        merged = {**merged, **each, "properties": properties, "required": required}
    return merged


def _at(root: Schema, reference: str) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = (
                found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
            )
    return found if isinstance(found, dict) else {}


def _type_of(schema: Schema) -> str | None:
    named = schema.get("type")
    if isinstance(named, list):
        return next((each for each in named if each != "null"), None)
    if named is None and schema.get("properties"):
        return "object"
    return named


def _object(schema: Schema, root: Schema, word: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    names = list(properties) if depth < OPTIONAL_DEPTH else [name for name in properties if name in required]
    filled = {name: _value(properties[name], root, word, depth + 1) for name in names}
    return {**filled, **{name: None for name in required if name not in filled}}


def _string(schema: Schema, word: str) -> str:
    shortest: int = schema.get("minLength", 0)
    text = word if len(word) >= shortest else word.ljust(shortest, "~")
    return text[: schema.get("maxLength", len(text))]


def _number(schema: Schema, usual: float) -> Any:
    if "minimum" in schema:
        return schema["minimum"]
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + usual
    if "maximum" in schema:
        return min(usual, schema["maximum"])
    if "exclusiveMaximum" in schema:
        return min(usual, schema["exclusiveMaximum"] - usual)
    return usual
