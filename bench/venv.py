"""Make the rivals' virtual environments from bench/relays/*requirements.txt, and again when those change."""

import hashlib
import subprocess
import sys
from pathlib import Path

RELAYS = Path(__file__).parent / "relays" / "requirements.txt"
LITELLM = Path(__file__).parent / "relays" / "litellm-requirements.txt"


def ensure(folder: Path, requirements: Path) -> Path:
    """Return the environment's python; the first call downloads some hundred packages.

    An environment without our stamp is somebody's own: it is used as it is.
    """
    python, stamp = folder / "bin" / "python", folder / "bench-requirements"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and (not stamp.exists() or stamp.read_text() == wanted):
        return python
    print(f"installing the rivals into {folder} (once) ...", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text("unfinished")  # an install that was cut off is done again
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
    stamp.write_text(wanted)
    return python
