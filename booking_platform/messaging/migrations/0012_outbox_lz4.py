"""Compress what is announced as LZ4, where the server can: to write it costs a third of PostgreSQL's own way.

Only the catalogue changes. Rows that are there stay as they are, and are read as before.
"""

from django.db import migrations

LZ4 = """
DO $$ BEGIN
    EXECUTE 'ALTER TABLE outbox ALTER COLUMN messages SET COMPRESSION lz4';
EXCEPTION
    -- a server that was built without it, or is older than 14
    WHEN feature_not_supported OR syntax_error OR invalid_parameter_value THEN NULL;
END $$
"""
PGLZ = LZ4.replace("lz4'", "default'")


def compress(how):
    def run(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(how)

    return run


class Migration(migrations.Migration):

    dependencies = [
        ("messaging", "0011_story_of_dead_letters"),
    ]

    operations = [migrations.RunPython(compress(LZ4), compress(PGLZ))]
