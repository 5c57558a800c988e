"""How often events came, and what attempts came to.

PostgreSQL neither rewrites nor reads the table of processed events, which all workers wait for meanwhile: the
columns have constant defaults, and no check that the rows which are there would have to pass.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('messaging', '0009_edited_dead_letters'),
    ]

    operations = [
        migrations.CreateModel(
            name='Attempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(help_text='The model of the row: app.model.', max_length=100)),
                ('row', models.BigIntegerField(help_text='Its primary key.')),
                ('number', models.PositiveIntegerField(help_text='Of the attempt; of the last of several.')),
                ('times', models.PositiveIntegerField(default=1, help_text='How many came to the same in a row.')),
                ('outcome', models.CharField(max_length=100)),
                ('answer', models.TextField(blank=True, help_text='What was answered, in words.')),
                ('reference', models.CharField(blank=True, help_text='By which who answered knows the last answer.', max_length=255)),
                ('announced', models.CharField(blank=True, help_text='Routing keys of what was announced of it.', max_length=255)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'attempts',
            },
        ),
        migrations.AddField(
            model_name='processedevent',
            name='last_repeated_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='processedevent',
            name='repeats',
            field=models.IntegerField(db_default=0, default=0, help_text='How often it came again, without effect.'),
        ),
        migrations.AddIndex(
            model_name='attempt',
            index=models.Index(fields=['what', 'row', 'id'], name='attempts_of_row'),
        ),
        migrations.AddIndex(
            model_name='attempt',
            index=models.Index(fields=['last_at'], name='attempts_time'),
        ),
    ]
