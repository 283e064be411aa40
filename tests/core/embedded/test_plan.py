"""What one `up` decides before it starts anything: names, ports, URLs, and the environment of its children."""

from pathlib import Path

import pytest

from apps.core.embedded import plan
from apps.core.embedded.catalogue import CATALOGUE, SERVICES, entries_of
from apps.core.embedded.plan import Options
from apps.core.embedded.service import Service, UpError

OWN = {"REDRIVE_DATABASE_URL": "postgresql://u:p@db/x", "REDRIVE_REDIS_URL": "redis://cache/0"}
EVERYTHING = frozenset(SERVICES)


def names(environ=None, **options):
    return plan.choose_names(Options(data_dir=Path(), **options), environ or {})


def test_without_options_everything_starts():
    assert names() == EVERYTHING


def test_the_model_can_be_left_out():
    assert names(no_model=True) == EVERYTHING - {"model"}


@pytest.mark.parametrize(
    ("variable", "replaced"), [("REDRIVE_DATABASE_URL", "postgres"), ("REDRIVE_REDIS_URL", "valkey")]
)
def test_each_url_replaces_its_own_service(variable, replaced):
    assert names({variable: OWN[variable]}) == EVERYTHING - {replaced}


def test_an_unknown_name_is_refused_with_a_hint():
    with pytest.raises(UpError, match="Did you mean valkey"):
        names(only=("valky",))


def test_web_alone_needs_both_urls():
    with pytest.raises(UpError, match="REDRIVE_DATABASE_URL"):
        names(only=("web",))
    assert names(OWN, only=("web",)) == {"web"}


def test_a_url_of_another_scheme_is_refused():
    with pytest.raises(UpError, match="does not start with postgresql"):
        names({"REDRIVE_DATABASE_URL": "mysql://db/x"})


def test_nothing_to_start_is_refused():
    with pytest.raises(UpError, match="nothing to start"):
        names(OWN, only=("postgres",))


def test_the_databases_alone_do_not_migrate():
    assert [entry.name for entry in entries_of(frozenset({"postgres", "valkey"}))] == ["postgres", "valkey"]
    assert "prepare" in [entry.name for entry in entries_of(EVERYTHING)]


def test_what_an_entry_waits_for_comes_before_it():
    before: set[str] = set()
    for entry in CATALOGUE:
        assert set(entry.after) <= before
        before.add(entry.name)
        assert isinstance(entry, Service) or set(entry.needed_by) <= SERVICES.keys()


def test_a_run_has_different_ports_and_urls_with_its_passwords(tmp_path):
    run = plan.make_run(Options(data_dir=tmp_path), tmp_path, {})
    assert set(run.ports) == {name for name in EVERYTHING if SERVICES[name].listens}
    assert len(set(run.ports.values())) == len(run.ports)
    assert run.secrets["postgres_password"] in run.database_url
    assert run.secrets["valkey_password"] in run.redis_url
    assert run.url == f"http://127.0.0.1:{run.ports['web']}"
    assert run.model_url == f"http://127.0.0.1:{run.ports['model']}/v1"


def test_a_run_with_own_databases_uses_their_urls(tmp_path):
    run = plan.make_run(Options(data_dir=tmp_path, only=("web",)), tmp_path, OWN)
    assert run.database_url == OWN["REDRIVE_DATABASE_URL"]
    assert run.redis_url == OWN["REDRIVE_REDIS_URL"]
    assert run.model_url == ""


def test_a_host_of_another_machine_is_refused(tmp_path):
    with pytest.raises(UpError, match=r"--host 192\.0\.2\.1"):
        plan.make_run(Options(data_dir=tmp_path, host="192.0.2.1"), tmp_path, {})


@pytest.mark.parametrize(
    ("host", "reached_as"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
    ],
)
def test_the_url_names_a_host_that_this_machine_reaches(tmp_path, host, reached_as):
    run = plan.make_run(Options(data_dir=tmp_path), tmp_path, {})
    run.host = host
    assert run.url == f"http://{reached_as}:{run.ports['web']}"


def test_children_get_generated_secrets_and_strangers_none(tmp_path, monkeypatch):
    monkeypatch.delenv("REDRIVE_ENCRYPTION_KEYS", raising=False)
    monkeypatch.setenv("REDRIVE_SECRET_KEY", "mine")
    monkeypatch.setenv("SOME_API_KEY", "sk-of-the-person")
    run = plan.make_run(Options(data_dir=tmp_path), tmp_path, {})
    ours = run.environment()
    assert ours["REDRIVE_ENCRYPTION_KEYS"] == run.secrets["encryption_keys"][0]
    assert ours["REDRIVE_SECRET_KEY"] == "mine"
    assert ours["REDRIVE_DATABASE_URL"] == run.database_url
    assert ours["SOME_API_KEY"] == "sk-of-the-person"
    plain = run.plain_environment()
    assert "PATH" in plain
    assert not {"SOME_API_KEY", "REDRIVE_SECRET_KEY", "REDRIVE_DATABASE_URL"} & plain.keys()
