"""What announcements need. No table is rewritten: workers of the version before rely on the defaults."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0003_steps'),
    ]

    operations = [
        migrations.AddField(
            model_name='refund',
            name='announced',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='How many announcements were made of it.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='event_id',
            field=models.CharField(blank=True, db_default='', default='', help_text='Of the event that asked.', max_length=255),
        ),
    ]
