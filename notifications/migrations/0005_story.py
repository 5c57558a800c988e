"""E-mails are found by the event that asked for them."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('notifications', '0004_trace'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='cancellationemail',
            index=models.Index(fields=['event_id'], name='cancellation_emails_event'),
        ),
    ]
