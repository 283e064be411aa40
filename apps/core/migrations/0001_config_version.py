from django.db import migrations

CREATE = """
CREATE TABLE core_config_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
CREATE FUNCTION core_bump_config_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO core_config_version (version) VALUES (1)
    ON CONFLICT (one) DO UPDATE SET version = core_config_version.version + 1;
    RETURN NULL;
END $$;
"""
DROP = "DROP FUNCTION core_bump_config_version(); DROP TABLE core_config_version;"


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []
    operations = [migrations.RunSQL(CREATE, DROP)]
