"""Name the model ``Refund``, and remember apart who asked for nothing.

Nothing here rewrites a table or holds a lock for long: the table keeps its name, the two indexes are
renamed in place, and the new table is filled from the processed events that are still remembered.
"""

import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

DEFAULT_PERMISSIONS = ("add", "change", "delete", "view")


REMEMBER_NOTHING = """
    INSERT INTO nothing_to_refund (booking_id, event_id, created_at)
    SELECT aggregate_id, max(event_id), min(processed_at) FROM processed_events
    WHERE consumer = 'payment-gateway.booking-cancelled' AND outcome = 'nothing_to_refund'
    GROUP BY aggregate_id
    ON CONFLICT DO NOTHING
"""


def rename_permissions(old, new):
    """Let whoever may view the model under its old name view it under the new one."""

    def rename(apps, schema_editor):
        permissions = apps.get_model("auth", "Permission").objects
        for what in DEFAULT_PERMISSIONS:
            of_model = permissions.filter(content_type__app_label="payments")
            of_model.filter(codename=f"{what}_{old}").update(
                codename=f"{what}_{new}", name=f"Can {what} refund"
            )

    return rename


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0001_initial'),
        ('messaging', '0001_initial'),
        ('auth', '0012_alter_user_first_name_max_length'),
        ('contenttypes', '0002_remove_content_type_name'),
    ]

    operations = [
        migrations.RenameModel('IdempotencyStore', 'Refund'),
        migrations.AlterModelOptions(
            name='refund',
            options={
                'ordering': ('-created_at', '-id'),
                'permissions': (
                    ('retry_refund', 'Can have refunds tried again'),
                    ('settle_refund', 'Can mark refunds settled'),
                    ('reissue_refund', 'Can send a refund again under a new key'),
                ),
            },
        ),
        migrations.RenameIndex(
            model_name='refund',
            new_name='refund_next_attempt',
            old_name='idempotencystore_next_attempt',
        ),
        migrations.RenameIndex(
            model_name='refund',
            new_name='refund_lease',
            old_name='idempotencystore_lease',
        ),
        migrations.CreateModel(
            name='NothingToRefund',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('booking_id', models.CharField(max_length=255, unique=True)),
                ('event_id', models.CharField(blank=True, db_default='', default='', max_length=255)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now)),
            ],
            options={'db_table': 'nothing_to_refund'},
        ),
        migrations.RunSQL(REMEMBER_NOTHING, migrations.RunSQL.noop),
        migrations.RunPython(
            rename_permissions('idempotencystore', 'refund'),
            rename_permissions('refund', 'idempotencystore'),
        ),
    ]
