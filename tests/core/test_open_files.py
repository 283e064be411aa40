"""A process may have as many sockets as the machine lets it."""

import resource
import subprocess
import sys

from tests.gateway import ROOT

PROGRAM = """
import resource
from apps.core import open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(open_files.allow_all() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 64
    found = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
