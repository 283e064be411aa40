"""The shape of files: short, introduced by a sentence, named after what they are."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST_FILE, LONGEST_FUNCTION = 300, 60  # lines; both stay below
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "services", "managers"}


def modules(*folders: str) -> list[Path]:
    """The Python files of these folders, without migrations."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]
    assert found
    return sorted(found)


def name(path: Path) -> str:
    """A path as it is shown."""
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file, parsed once."""
    return ast.parse(path.read_text())


PRODUCT, TESTS = modules("apps", "config"), modules("tests")


def test_files_are_short() -> None:
    lines = {name(path): len(path.read_text().splitlines()) for path in PRODUCT + TESTS}
    assert {file: count for file, count in lines.items() if count >= LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    long = {
        f"{name(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in PRODUCT + TESTS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 >= LONGEST_FUNCTION
    }
    assert long == {}


def test_modules_begin_with_a_sentence() -> None:
    for path in PRODUCT + TESTS:
        if path.read_text().strip():
            docstring = ast.get_docstring(tree(path))
            assert docstring, f"{name(path)} has no docstring"
            first = docstring.splitlines()[0]
            assert first.endswith("."), f"{name(path)}: {first}"
            assert not first[0].islower(), f"{name(path)}: {first}"


def test_names_say_what_modules_are() -> None:
    inside = [path.relative_to(ROOT) for path in PRODUCT]
    assert [str(path) for path in inside if FORBIDDEN_NAMES.intersection({path.stem, *path.parts[:-1]})] == []


def test_no_test_sleeps_the_clock_away() -> None:
    sleeping = [
        name(path)
        for path in TESTS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]
    assert sleeping == []
