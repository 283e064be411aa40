"""Everything `manage.py up` starts: PostgreSQL, Valkey, a local model and Redrive's own processes, on one machine.

`catalogue` says what there is, `supervisor` keeps it alive, `service` holds the nouns both speak in.
"""
