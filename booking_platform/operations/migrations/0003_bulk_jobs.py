"""Jobs about many dead letters; and the new rights, for the roles that are there."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


RIGHTS = {
    "operator": (
        ("messaging", "deadletter", "edit_deadletter"),
        ("operations", "bulkjob", "export_records"),
        ("operations", "bulkjob", "export_private"),
    ),
    "finance": (
        ("messaging", "deadletter", "edit_deadletter"),
        ("messaging", "deadletter", "discard_deadletter"),
        ("operations", "bulkjob", "export_records"),
    ),
}


def give_rights(apps, schema_editor):
    """Give the roles their new rights. A role that an administrator has deleted stays deleted."""
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    for group in groups.filter(name__in=RIGHTS):
        for right in RIGHTS[group.name]:
            group.permissions.add(_permission(apps, schema_editor, *right))


def _permission(apps, schema_editor, app_label, model, codename):
    """Return a permission. Django makes those of new models only after the last migration."""
    alias = schema_editor.connection.alias
    names = dict(apps.get_model(app_label, model)._meta.permissions)
    kinds = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    kind, _ = kinds.get_or_create(app_label=app_label, model=model)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    return permissions.get_or_create(
        content_type=kind, codename=codename, defaults={"name": names[codename]}
    )[0]


class Migration(migrations.Migration):

    dependencies = [
        ('messaging', '0009_edited_dead_letters'),
        ('operations', '0002_roles'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='BulkJob',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempts', models.PositiveIntegerField(db_default=0, default=0, help_text='How often a worker took it up.')),
                ('lease_token', models.UUIDField(blank=True, help_text='Fences what the holder of the last lease may write.', null=True)),
                ('lease_until', models.DateTimeField(blank=True, help_text='Until when a worker has it; past: that worker is gone.', null=True)),
                ('next_attempt_at', models.DateTimeField(blank=True, help_text='When it is taken up next; empty: not by itself.', null=True)),
                ('last_error', models.TextField(blank=True, db_default='', default='', help_text='Why the last attempt did not finish it.')),
                ('updated_at', models.DateTimeField(auto_now=True, db_default=django.db.models.functions.datetime.Now())),
                ('trace', models.CharField(blank=True, db_default='', default='', help_text='W3C traceparent of the event that asked for it.', max_length=55)),
                ('settled_at', models.DateTimeField(blank=True, null=True)),
                ('settled_by', models.CharField(blank=True, db_default='', default='', max_length=150)),
                ('settlement', models.TextField(blank=True, db_default='', default='', help_text='Why a person closed the matter.')),
                ('announced', models.PositiveIntegerField(db_default=0, default=0, help_text='How many announcements were made of it.')),
                ('kind', models.CharField(choices=[('replay', 'replay: send each to its queue again'), ('discard', 'discard: close each without effect')], max_length=10)),
                ('selection', models.JSONField(help_text='Which letters: what a list was filtered by, or their ids.')),
                ('newest', models.BigIntegerField(help_text='The newest letter that is in it.')),
                ('made_by', models.CharField(max_length=150)),
                ('made_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('why', models.TextField(blank=True)),
                ('total', models.PositiveIntegerField(help_text='Letters that it was about when it was made.')),
                ('done', models.PositiveIntegerField(default=0)),
                ('failed', models.PositiveIntegerField(default=0)),
                ('failures', models.JSONField(default=list, help_text='The first letters that stayed open, and why.')),
                ('position', models.BigIntegerField(default=0, help_text='The last letter that it has dealt with.')),
                ('stopped_by', models.CharField(blank=True, db_default='', default='', max_length=150)),
                ('stopped_because', models.TextField(blank=True, db_default='', default='')),
                ('finished_at', models.DateTimeField(blank=True, help_text='When it ended, or was stopped.', null=True)),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'bulk_jobs',
                'ordering': ('-id',),
                'permissions': (('export_records', 'Can export lists as CSV'), ('export_private', 'Can export addresses and messages as CSV')),
                'indexes': [models.Index(condition=models.Q(('next_attempt_at__isnull', False)), fields=['next_attempt_at'], name='bulkjob_next_attempt'), models.Index(condition=models.Q(('lease_until__isnull', False)), fields=['lease_until'], name='bulkjob_lease')],
            },
        ),
        migrations.RunPython(give_rights, migrations.RunPython.noop),
    ]
