"""The migration step that makes a table's changes raise the configuration's version."""

from django.db.migrations.operations import RunSQL


def bump_config_version_on_change(*tables: str) -> RunSQL:
    """Statement triggers on the tables; each INSERT, UPDATE, DELETE and TRUNCATE raises the version once."""
    return RunSQL(
        [
            f"CREATE TRIGGER bump_config_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION core_bump_config_version()"
            for table in tables
        ],
        [f"DROP TRIGGER bump_config_version ON {table}" for table in tables],
    )
