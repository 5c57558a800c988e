"""The trace with which a message came. No table is rewritten: the column has a constant default."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('messaging', '0006_outbox'),
    ]

    operations = [
        migrations.AddField(
            model_name='deadletter',
            name='trace',
            field=models.CharField(blank=True, db_default='', default='', help_text='W3C traceparent with which it came; a replay has it too.', max_length=55),
        ),
    ]
