"""Remember what the creation of a booking said, and the steps of its life after that.

Nothing here rewrites or scans a table: the new columns are empty in rows that are there, and workers of
the version before insert rows without them.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='reservation',
            name='booked',
            field=models.IntegerField(blank=True, help_text='What its creation said; empty in rows of an older version.', null=True),
        ),
        migrations.AddField(
            model_name='reservation',
            name='steps',
            field=models.TextField(blank=True, db_default='', default='', help_text='Its cancellations and changes (catalog.life.Step, as JSON).'),
        ),
        migrations.AlterField(
            model_name='reservation',
            name='seats',
            field=models.PositiveIntegerField(help_text='That it holds; else those that it held or asked for last, or that were cancelled before its creation arrived.'),
        ),
        migrations.AlterField(
            model_name='reservation',
            name='seats_cancelled',
            field=models.PositiveIntegerField(blank=True, help_text='What the last cancellation said; the seats above count.', null=True),
        ),
        migrations.AlterField(
            model_name='reservation',
            name='state',
            field=models.CharField(choices=[('reserved', 'reserved: holds its seats'), ('rejected', 'rejected: there were not enough seats'), ('released', 'released: cancelled, its seats are free again'), ('cancelled', 'cancelled before its creation arrived'), ('changed', 'changed before its creation arrived')], max_length=10),
        ),
    ]
