from django.db import migrations

from gateway.partitioning import PartByMonth


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('gateway', '0005_columns_of_the_ledger'),
    ]

    operations = [
        PartByMonth(),
    ]
