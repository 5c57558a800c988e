"""One e-mail for each step of a booking's cancellation instead of one for each booking.

No table is rewritten: the new columns have constant defaults, which PostgreSQL keeps in its catalog. The
table is locked while its rows are read once and the new index is built, in trials three seconds for a
million mails; workers wait for that in place. Workers of the version before go on beside this one: they
leave out the new columns, and what they store is of the whole booking, which still has one mail.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('notifications', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='cancellationemail',
            name='seats_remaining',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='The step: how many seats the booking keeps after it.'),
        ),
        migrations.AddField(
            model_name='cancellationemail',
            name='step_named',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether the event named its step.'),
        ),
        migrations.AddField(
            model_name='cancellationemail',
            name='revision',
            field=models.BigIntegerField(blank=True, help_text="As the event says it: it tells steps apart that leave as many seats.", null=True),
        ),
        migrations.AddConstraint(
            model_name='cancellationemail',
            constraint=models.UniqueConstraint(fields=('booking_id', 'seats_remaining'), name='cancellation_emails_step'),
        ),
        migrations.AlterField(
            model_name='cancellationemail',
            name='booking_id',
            field=models.CharField(max_length=255),
        ),
    ]
