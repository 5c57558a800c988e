"""The trace of the event that asked for it. No table is rewritten: the column has a constant default."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0004_announcements'),
    ]

    operations = [
        migrations.AddField(
            model_name='refund',
            name='trace',
            field=models.CharField(blank=True, db_default='', default='', help_text='W3C traceparent of the event that asked for it.', max_length=55),
        ),
    ]
