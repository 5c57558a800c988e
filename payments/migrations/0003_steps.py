"""A refund for each payment and step of a booking, looked at before it is sent, and let out by a person.

No table is rewritten: each new column is empty or has a constant for its default, which workers of the
version before rely on too. The two unique indexes are built while the tables are locked: five seconds for a
million refunds. Workers wait meanwhile, as for any lock, and lose nothing.
"""

from django.db import migrations, models
from django.db.models.functions import Now


def look_at_what_is_pending(apps, schema_editor):
    """Schedule the refunds that were pending when they were last looked at."""
    refunds = apps.get_model("payments", "Refund").objects
    pending = refunds.filter(status="completed", stripe_status="pending", next_attempt_at=None)
    pending.update(next_attempt_at=Now())


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0002_refund'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='refund',
            options={'ordering': ('-created_at', '-id'), 'permissions': (('retry_refund', 'Can have refunds tried again'), ('settle_refund', 'Can mark refunds settled'), ('reissue_refund', 'Can send a refund again under a new key'), ('approve_refund', 'Can let refunds go out that wait for a person'), ('request_refund', "Can replay cancellations into the refunds' queue"))},
        ),
        migrations.AddField(
            model_name='nothingtorefund',
            name='seats_remaining',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='The step, as of a refund.'),
        ),
        migrations.AddField(
            model_name='nothingtorefund',
            name='step_named',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='refund',
            name='amount_asked',
            field=models.DecimalField(blank=True, decimal_places=2, help_text='To refund, as the event says; empty: stored by the version before.', max_digits=14, null=True),
        ),
        migrations.AddField(
            model_name='refund',
            name='approval',
            field=models.TextField(blank=True, db_default='', default='', help_text='Why a person let it go out.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='approved_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='refund',
            name='approved_by',
            field=models.CharField(blank=True, db_default='', default='', max_length=150),
        ),
        migrations.AddField(
            model_name='refund',
            name='approved_codes',
            field=models.CharField(blank=True, db_default='', default='', help_text='In spite of what.', max_length=255),
        ),
        migrations.AddField(
            model_name='refund',
            name='by_hand',
            field=models.TextField(blank=True, db_default='', default='', help_text='Ids of refunds that may have been made by hand for this, as the last look found them.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='approved_by_hand',
            field=models.TextField(blank=True, db_default='', default='', help_text='Those that a person knows not to be for this.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='cancelled_at',
            field=models.DateTimeField(blank=True, help_text='The timestamp of the event that asked for it.', null=True),
        ),
        migrations.AddField(
            model_name='refund',
            name='further_payment',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether the booking had a refund of another payment already.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='review_code',
            field=models.CharField(blank=True, db_default='', default='', help_text='Why, in a word.', max_length=30),
        ),
        migrations.AddField(
            model_name='refund',
            name='revision',
            field=models.BigIntegerField(blank=True, help_text='Of the booking, where the event names it.', null=True),
        ),
        migrations.AddField(
            model_name='refund',
            name='seats_remaining',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='The step: how many seats the booking keeps; 0: the whole booking is cancelled.'),
        ),
        migrations.AddField(
            model_name='refund',
            name='step_named',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether the event named the step.'),
        ),
        migrations.AlterField(
            model_name='nothingtorefund',
            name='booking_id',
            field=models.CharField(max_length=255),
        ),
        migrations.AlterField(
            model_name='refund',
            name='amount_minor',
            field=models.BigIntegerField(blank=True, help_text="The same in the currency's minor units; empty: the currency is not known yet.", null=True),
        ),
        migrations.AlterField(
            model_name='refund',
            name='booking_id',
            field=models.CharField(max_length=255),
        ),
        migrations.AlterField(
            model_name='refund',
            name='currency',
            field=models.CharField(blank=True, default='', help_text='As the event names it, else as the payment has it; empty: not known yet.', max_length=3),
        ),
        migrations.AlterField(
            model_name='refund',
            name='payment_id',
            field=models.CharField(help_text="Stripe's payment intent or charge.", max_length=255),
        ),
        migrations.AlterField(
            model_name='refund',
            name='request_payload',
            field=models.JSONField(blank=True, default=dict, help_text='What every attempt sends, frozen when it is first sent.'),
        ),
        migrations.AlterField(
            model_name='refund',
            name='status',
            field=models.CharField(choices=[('in_progress', 'in progress: may or may not have reached Stripe yet'), ('completed', 'completed: Stripe has the refund, in a status of its own'), ('failed', "failed: it can't be made, and Stripe has no refund of ours")], default='in_progress', max_length=50),
        ),
        migrations.AddConstraint(
            model_name='nothingtorefund',
            constraint=models.UniqueConstraint(fields=('booking_id', 'seats_remaining'), name='nothing_to_refund_step'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.UniqueConstraint(fields=('booking_id', 'payment_id', 'seats_remaining'), name='idempotency_store_step'),
        ),
        migrations.RunPython(look_at_what_is_pending, migrations.RunPython.noop),
    ]
