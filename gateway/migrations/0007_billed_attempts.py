from django.db import migrations, models

from gateway.columns import AddColumns


class Migration(migrations.Migration):
    """Rollups that are there count no billed attempt until `manage.py rebuild_rollups` works them out anew."""

    dependencies = [
        ("gateway", "0006_partitions"),
    ]

    operations = [
        AddColumns(
            "rollup",
            billed_attempts=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumns(
            "tagrollup",
            billed_attempts=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
