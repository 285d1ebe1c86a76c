"""A migration step that adds columns in place on both databases: a large ledger is not read or rewritten."""

import copy
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED, Field, Model


class AddColumns(Operation):
    """As `AddField` for each, in place also on SQLite, where Django makes the table anew.

    A field may be null or has a constant `db_default`, so that code which does not know it still writes.
    The way back leaves the columns where they are: SQLite would write every row anew to drop one,
    code of before does not see them, and whoever comes forth again finds what was kept in them.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, model_name: str, **fields: Any) -> None:
        self.model_name, self.fields = model_name.lower(), fields

    def state_forwards(self, app_label: str, state: Any) -> None:
        """All at once: the models are put together anew for each time that the state is told of a change."""
        state.models[app_label, self.model_name].fields.update(self.fields)
        state.reload_model(app_label, self.model_name, delay=True)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        known = _columns(schema_editor.connection, model)
        for name in self.fields:
            field = model._meta.get_field(name)
            if field.column not in known:
                BaseDatabaseSchemaEditor.add_field(schema_editor, model, _plain(field))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Nothing to do."""

    def describe(self) -> str:
        return f"Add {', '.join(self.fields)} to {self.model_name}"


def _columns(connection: Any, model: type[Model]) -> set[str]:
    """Of the table as it is."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, model._meta.db_table)
    return {each.name for each in found}


def _plain(field: Any) -> "Field[Any, Any]":
    """Without the default of Python, which the database has of its own, and without a check.

    SQLite reads the whole table to see whether a new column passes its check.
    """
    plain: Field[Any, Any] = copy.copy(field)
    plain.default = NOT_PROVIDED
    plain.db_check = lambda connection: None  # type: ignore[method-assign]
    return plain
