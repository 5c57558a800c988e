"""Refunds are found by the event that asked for them."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0005_trace'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='refund',
            index=models.Index(fields=['event_id'], name='idempotency_store_event'),
        ),
    ]
