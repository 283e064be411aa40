"""The screen of a start tells what to paste, and up.json what a script needs."""

import pytest

from apps.core.embedded import plan, screen
from apps.core.embedded.plan import Options
from apps.core.embedded.supervisor import up_content


@pytest.fixture
def run(tmp_path):
    run = plan.make_run(Options(data_dir=tmp_path), tmp_path, {})
    run.secrets["api_key"] = "rd_key"
    run.facts["admin_password"] = run.secrets["admin_password"]
    return run


def test_the_screen_has_all_that_a_newcomer_needs(run):
    text = screen.text(run)
    for needed in (f"{run.url}/v1", "/v1/docs", "/admin/", "rd_key", run.secrets["admin_password"], "Ctrl-C"):
        assert needed in text
    assert "\033" not in text


def test_the_curl_line_can_be_pasted(run):
    text = screen.text(run)
    command = text[text.index("curl ") :].split("\n\n")[0]
    lines = command.splitlines()
    assert all(line.endswith("\\") for line in lines[:-1])
    assert f"{run.url}/v1/chat/completions" in command
    assert "Authorization: Bearer rd_key" in command
    assert '"model": "smollm2-135m-instruct"' in command


def test_colours_are_for_terminals(run):
    assert "\033[" in screen.text(run, colours=True)


def test_a_password_that_was_changed_is_not_shown(run):
    run.facts["admin_password"] = ""
    assert run.secrets["admin_password"] not in screen.text(run)


def test_databases_alone_show_no_secret(tmp_path):
    run = plan.make_run(Options(data_dir=tmp_path, only=("postgres", "valkey")), tmp_path, {})
    text = screen.text(run)
    assert str(run.ports["postgres"]) in text
    assert run.secrets["postgres_password"] not in text


def test_what_listens_nowhere_is_on_no_screen(tmp_path):
    only = ("postgres", "valkey", "clock", "worker")
    run = plan.make_run(Options(data_dir=tmp_path, only=only), tmp_path, {})
    text = screen.text(run)
    assert str(run.ports["valkey"]) in text
    assert "clock" not in text


def test_up_json_has_its_agreed_fields(run):
    content = up_content(run, {"supervisor": 1, "web": 2})
    assert set(content) == {
        "url", "admin_url", "database_url", "redis_url", "api_key", "admin", "postgres_data", "pids",
    }  # fmt: skip
    assert content["admin"] == {"username": "admin", "password": run.secrets["admin_password"]}
    assert content["pids"] == {"supervisor": 1, "web": 2}
