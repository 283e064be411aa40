"""The commands of docs/operator-api.md, as they stand there, against a real gateway."""

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from apps.access import operator_tokens
from apps.dead_letters import tallies
from apps.dead_letters.models import BulkOperation, DeadLetter
from apps.dead_letters.queries import shown_id
from apps.providers.errors import UpstreamUnreachable
from apps.tasks import kinds
from apps.tasks.models import Task, TaskPayload
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_bulk import end, tick
from tests.gateway import Gateway
from tests.tasks.conftest import MakeKind

PAGE = (Path(__file__).parents[2] / "docs/operator-api.md").read_text()


def drill(url: str, secret: str, group: str, letter: str) -> str:
    """The page's commands from the first look to the report, and the edit of a letter."""
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    setup = f"export REDRIVE={url} REDRIVE_OPERATOR_TOKEN={secret}\n"
    setup += f"letter={letter}\n" + next(line for line in blocks[1].splitlines() if line.startswith("ops()"))
    first = next(number for number, block in enumerate(blocks) if "groups/ --data-urlencode" in block)
    commands = [
        block.replace("group=6f1c...", f"group={group}").replace("sleep 5", "sleep 0.2")
        for block in blocks[first : first + 6]
    ]
    # What a person waits for between the plan and the start.
    commands.insert(2, "until ops $bulk | jq -e '.state == \"ready\"' > /dev/null; do sleep 0.2; done")
    return "\n".join(["set -euo pipefail", setup, *commands])


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
@pytest.mark.django_db(transaction=True)
def test_the_commands_of_the_page_redrive_a_group_and_edit_a_letter(
    gateway: Gateway, make_letter: MakeLetter, make_kind: MakeKind, django_user_model: Any
) -> None:
    kind, outage = make_kind(), UpstreamUnreachable("The provider answered 503.")
    letters = [make_letter(kind=kind, error=outage) for _ in range(25)]
    args = {"model": "gpt-5o", "messages": [{"role": "user", "content": "x"}]}
    other = make_letter(kind=kinds.find("chat_completion"), args=args)
    tallies.fold()
    _, secret = operator_tokens.create(user=django_user_model.objects.create_superuser("ada"))
    script = drill(gateway.url, secret, letters[0].group_id, shown_id(other.pk))
    running = subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # the clock of this test's process runs what it plans
    try:
        wait = threading.Event()
        for _ in range(300):
            if running.poll() is not None:
                break
            for operation in BulkOperation.objects.all():
                tick(operation, seconds=11 if operation.state == "holding" else 1)
            if Task.objects.filter(state="pending", kind=kind.name).exists():
                end(letters)
            wait.wait(0.1)
        shown, _ = running.communicate(timeout=10)
    finally:
        running.kill()
    assert running.returncode == 0, shown
    assert '"canary": 3' in shown
    assert '"failed_again": []' in shown
    operation = BulkOperation.objects.get()
    assert (operation.state, operation.rate, operation.succeeded) == ("done", 100, 25)
    assert DeadLetter.objects.filter(state="redriven").count() == 26
    edited = TaskPayload.objects.get(task_id=other.task_id, revision=2)
    assert json.loads(edited.body) == {**args, "model": "gpt-4o"}
