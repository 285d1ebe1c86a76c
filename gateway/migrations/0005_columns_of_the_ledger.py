from django.db import migrations, models

from gateway.columns import AddColumns


class Migration(migrations.Migration):
    """Apart from the rest, so that the ledger's tables are locked for no longer than this takes.

    Entries first, as whoever writes locks them: the other way round each would wait for the other.
    """

    dependencies = [
        ('gateway', '0004_books'),
    ]

    operations = [
        AddColumns(
            'entry',
            attempts_made=models.SmallIntegerField(db_default=0, default=0),
            audio_input_tokens=models.BigIntegerField(db_default=0, default=0),
            audio_output_tokens=models.BigIntegerField(db_default=0, default=0),
            cache_write_tokens=models.BigIntegerField(db_default=0, default=0),
            facts=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
            queued_us=models.BigIntegerField(db_default=0, default=0),
            reasoning_tokens=models.BigIntegerField(db_default=0, default=0),
            target=models.CharField(db_default='', default='', max_length=251),
        ),
        AddColumns(
            'attempt',
            audio_input_tokens=models.BigIntegerField(db_default=0, default=0),
            audio_output_tokens=models.BigIntegerField(db_default=0, default=0),
            cache_write_tokens=models.BigIntegerField(db_default=0, default=0),
            first_byte_us=models.BigIntegerField(null=True),
            pool_wait_us=models.BigIntegerField(db_default=0, default=0),
            price=models.CharField(db_default='', default='', max_length=300),
            reasoning_tokens=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
