"""Which booking a dead letter is of. Those from before name none until they come again.

A migration of its own: while the index is made, the workers need the table of processed events.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('messaging', '0010_story'),
    ]

    operations = [
        migrations.AddField(
            model_name='deadletter',
            name='aggregate_id',
            field=models.CharField(blank=True, db_default='', default='', help_text='What it speaks of, as far as that can be read.', max_length=255),
        ),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(fields=['aggregate_id'], name='dead_letters_aggregate'),
        ),
    ]
