"""The admin's history is found by record: Django's own table has no index for that."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("operations", "0003_bulk_jobs"),
    ]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX IF NOT EXISTS admin_log_of_record"
            " ON django_admin_log (content_type_id, object_id)",
            "DROP INDEX IF EXISTS admin_log_of_record",
        )
    ]
