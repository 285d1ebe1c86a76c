"""What an action of the audit is about: the part of its name before the dot, as its index has it."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, Func
from django.db.models.sql.compiler import SQLCompiler


class Area(Func):
    """Of `key.rotated` it is `key`. The dot is written into the SQL: an index is for that very expression."""

    arity = 1
    output_field = CharField()
    template = "SUBSTR(%(expressions)s, 1, INSTR(%(expressions)s, '.') - 1)"

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **more: Any) -> Any:
        return self.as_sql(compiler, connection, template="SPLIT_PART(%(expressions)s, '.', 1)", **more)
