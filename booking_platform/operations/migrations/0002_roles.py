"""Groups for the roles: reader, operator, finance. A group that is there already stays as it is."""

from django.db import migrations

VIEW = (
    ("catalog", "tour", "view_tour"),
    ("catalog", "reservation", "view_reservation"),
    ("messaging", "processedevent", "view_processedevent"),
    ("messaging", "deadletter", "view_deadletter"),
    ("notifications", "cancellationemail", "view_cancellationemail"),
    ("payments", "refund", "view_refund"),
)
REPLAY = ("messaging", "deadletter", "replay_deadletter")
ROLES = {
    "reader": VIEW,
    "operator": (
        *VIEW,
        ("catalog", "tour", "add_tour"),
        ("catalog", "tour", "change_tour"),
        REPLAY,
        ("messaging", "deadletter", "discard_deadletter"),
        ("notifications", "cancellationemail", "resend_cancellationemail"),
        ("notifications", "cancellationemail", "settle_cancellationemail"),
    ),
    "finance": (
        *VIEW,
        REPLAY,
        ("payments", "refund", "approve_refund"),
        ("payments", "refund", "reissue_refund"),
        ("payments", "refund", "request_refund"),
        ("payments", "refund", "retry_refund"),
        ("payments", "refund", "settle_refund"),
    ),
}


def make_roles(apps, schema_editor):
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    for name, rights in ROLES.items():
        group, made = groups.get_or_create(name=name)
        if made:
            group.permissions.set(_permission(apps, schema_editor, *right) for right in rights)


def _permission(apps, schema_editor, app_label, model, codename):
    """Return a permission. Django makes those of new models only after the last migration."""
    alias = schema_editor.connection.alias
    options = apps.get_model(app_label, model)._meta
    names = dict(options.permissions)
    usual = f"Can {codename.partition('_')[0]} {options.verbose_name_raw}"
    kinds = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    kind, _ = kinds.get_or_create(app_label=app_label, model=model)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    return permissions.get_or_create(
        content_type=kind, codename=codename, defaults={"name": names.get(codename, usual)}
    )[0]


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("catalog", "0002_life_of_bookings"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("messaging", "0006_outbox"),
        ("notifications", "0002_steps"),
        ("operations", "0001_audit_runs"),
        ("payments", "0003_steps"),
    ]

    operations = [migrations.RunPython(make_roles, migrations.RunPython.noop)]
