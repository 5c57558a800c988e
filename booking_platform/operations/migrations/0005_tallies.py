"""What is counted by minute; and who may see the audits, the outbox, the workers and these counts.

A role that may not see dead letters any more has been changed by an administrator, and stays as it is.
"""

from django.db import migrations, models

SEEN = (
    ("messaging", "heartbeat"),
    ("messaging", "outboxrow"),
    ("operations", "auditrun"),
    ("operations", "tally"),
)
ROLES = ("reader", "operator", "finance")


def show_more(apps, schema_editor):
    alias = schema_editor.connection.alias
    groups = apps.get_model("auth", "Group").objects.using(alias)
    changed = groups.filter(name__in=ROLES, permissions__codename="view_deadletter").distinct()
    for group in changed:
        group.permissions.add(*(_right_to_view(apps, alias, *model) for model in SEEN))


def _right_to_view(apps, alias, app_label, model):
    """Return a permission. Django makes those of new models only after the last migration."""
    kinds = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    kind, _ = kinds.get_or_create(app_label=app_label, model=model)
    name = f"Can view {apps.get_model(app_label, model)._meta.verbose_name_raw}"
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    right, _ = permissions.get_or_create(
        content_type=kind, codename=f"view_{model}", defaults={"name": name}
    )
    return right


class Migration(migrations.Migration):

    dependencies = [
        ("messaging", "0008_heartbeats"),
        ('operations', '0004_history_of_records'),
    ]

    operations = [
        migrations.CreateModel(
            name='Tally',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(help_text='What is counted.', max_length=20)),
                ('minute', models.DateTimeField(help_text='When the minute began.')),
                ('subject', models.CharField(blank=True, help_text='The consumer, or what was written; empty: a mark that the minute is counted.', max_length=100)),
                ('word', models.CharField(blank=True, help_text='The outcome, where it has one.', max_length=50)),
                ('count', models.BigIntegerField()),
            ],
            options={
                'verbose_name': 'count',
                'verbose_name_plural': 'counts by minute',
                'db_table': 'tallies',
                'ordering': ('-minute', 'kind', 'subject', 'word'),
                'constraints': [models.UniqueConstraint(fields=('minute', 'kind', 'subject', 'word'), name='tallies_once_a_minute')],
            },
        ),
        migrations.RunPython(show_more, migrations.RunPython.noop),
    ]
