"""Documents that fit their schemas."""

import pytest

from gateway.simulator.documents import document_for


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "string"}, "river"),
        ({"type": "string", "maxLength": 3}, "riv"),
        ({"type": "string", "minLength": 7}, "river~~"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "string"]}, "river"),
        ({"enum": ["open", "closed"]}, "open"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 1),
        ({"oneOf": [{"type": "boolean"}]}, True),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "maxItems": 0}, []),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"type": "object", "properties": {}, "required": ["b"]}, {"b": None}),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"const": 2}}}]},
            {"a": 1, "b": 2},
        ),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"properties": {"a": {"const": 1}}}}}, {"a": 1}),
        ({"$ref": "#/$defs/side", "$defs": {"side": {"enum": ["left"]}}}, "left"),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({}, None),
        (True, None),
    ],
)
def test_a_document_fits(schema, document):
    assert document_for(schema, "river") == document


def test_a_recursive_schema_ends():
    node = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#"}}}
    document, depth = document_for(node), 0
    while document.get("next"):
        document, depth = document["next"], depth + 1
    assert 0 < depth < 12


def test_a_schema_that_refers_to_itself_forever_ends():
    assert document_for({"$ref": "#"}) is None
