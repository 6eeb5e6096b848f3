"""The documents: code runs, links lead somewhere, commands exist, the reference has every public name."""

import functools
import importlib
import inspect
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

import kernelode as ko

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
API_PAGES = sorted((DOCS / "api").glob("*.md"))
#: Documents whose code the default tests run; that of all others runs as `slow`, and in `.ci/run`.
FIRST = ("docs/index.md",)

# Runs each document as a program of its own, and says which failed, where, and how long each took.
_RUNNER = """
import json, sys, time, traceback

failures = {}
for name, code in json.load(sys.stdin).items():
    start = time.process_time()
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    except BaseException:
        failures[name] = traceback.format_exc()
    print(f"== {name}: {time.process_time() - start:.1f} s")
print(json.dumps(failures))
"""


def name_of(document: pathlib.Path) -> str:
    return str(document.relative_to(ROOT))


def python_blocks(document: pathlib.Path) -> str:
    """All Python blocks of a document, on their own lines, so that errors name the right one."""
    lines, inside = [], False
    for line in document.read_text("utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        if fence:
            inside = not inside and line.strip() == "```python"
        lines.append(line if inside and not fence else "")
    return "\n".join(lines) + "\n"


def run_documents(programs: dict[str, str], folder: pathlib.Path) -> tuple[dict[str, str], str]:
    """The traceback of each program that fails, and what was printed; all in one process, in `folder`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "PYTHONWARNINGS")}
    environment |= {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        cwd=folder,
        env=environment,
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *printed, failures = done.stdout.splitlines()
    return json.loads(failures), "\n".join(printed)


def programs(double: bool, first: bool) -> dict[str, str]:
    """The code of the documents of one precision, by name."""
    code = {name_of(document): python_blocks(document) for document in DOCUMENTS}
    of_kind = lambda name: ("jax_enable_x64" in code[name]) is double and (name in FIRST) is first
    return {name: text for name, text in code.items() if text.strip() and of_kind(name)}


@pytest.mark.parametrize(
    "first", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["first", "others"]
)
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_code_in_documents_runs(double, first, tmp_path):
    # One process for many: starting JAX, and compiling the same programs anew, is most of the time. Two,
    # because JAX cannot change its precision once it has computed something.
    failures, printed = run_documents(programs(double, first), tmp_path)
    print(printed)
    assert not failures, "\n\n".join(f"{name}\n{text}" for name, text in failures.items())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_code_in_documents_compiles(document):
    assert compile(python_blocks(document), name_of(document), "exec")


def test_failing_code_in_a_document_is_named(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(
        "Text.\n\n```python\nx = 1\n```\n\n```sh\nls\n```\n\n```python\nassert x == 2\n```\n"
    )
    code = {
        "good.md": "y = 1\n",
        "page.md": python_blocks(document),
        "other.md": "assert 'x' not in dir()\n",
    }
    failures, _ = run_documents(code, tmp_path)
    assert list(failures) == ["page.md"]
    assert 'File "page.md", line 12' in failures["page.md"]


def commands(document: pathlib.Path) -> list[list[str]]:
    """The commands in a document's shell and indented blocks, each as its words: one for every `&&`."""
    found, inside = [], False
    for line in document.read_text("utf-8").replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside and line.strip() == "```sh"
        elif inside or re.match(r" {4}(python|kernelode) ", line):
            found += [shlex.split(part, comments=True) for part in line.split("&&")]
    return [words for words in found if words]


@functools.cache
def options_of_the_command() -> dict[str, set[str]]:
    import typer.main

    from kernelode._cli.main import _application

    command: Any = typer.main.get_command(_application())
    return {
        name: {"--help", *(o for p in sub.params for o in (*p.opts, *p.secondary_opts))}
        for name, sub in command.commands.items()
    }


def wrong_options(words: list[str], known: dict[str, set[str]]) -> list[str]:
    """Subcommands, scripts and options in one command that do not exist."""
    program = pathlib.Path(words[0]).name
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    if program == "kernelode":
        if words[1] not in known:
            return [words[1]]
        return [option for option in options if option not in known[words[1]]]
    if program in ("python", "python3") and words[1].endswith(".py"):
        script = ROOT / words[1]
        if not script.is_file():
            return [words[1]]
        text = script.read_text("utf-8")
        return [option for option in options if f'"{option}"' not in text]
    return []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_in_documents_exist(document):
    known = options_of_the_command()
    assert known["rho"] >= {"--data", "--depth", "--plot"}
    wrong = {" ".join(words): wrong_options(words, known) for words in commands(document)}
    assert not {command: options for command, options in wrong.items() if options}


def test_wrong_commands_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "    kernelode rho --data digits --deep 3\n\n```sh\na && .venv/bin/kernelode rhos\n"
        "python examples/nothing.py\npython examples/optimal_residual_scale.py --depths 1 --width 2\n"
        "```\n"
    )
    known = options_of_the_command()
    wrong = [wrong_options(words, known) for words in commands(page)]
    assert wrong == [["--deep"], [], ["rhos"], ["examples/nothing.py"], ["--width"]]


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.replace("\\", "").lower()).strip().replace(" ", "-")


def links(document: pathlib.Path) -> list[str]:
    """Where a document's links lead, within the repository."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", t)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_in_documents_lead_somewhere(document):
    for target in links(document):
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.is_file(), f"{document.name} links to {target}, which does not exist"
        if DOCS in document.parents:
            assert DOCS in linked.parents, f"{document.name} links to {target}, which is not on the site"
        if anchor and DOCS / "api" not in linked.parents:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{document.name}: no heading for {target}"


def test_navigation_has_every_page_once():
    configured = re.findall(
        r"^ +- .*?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    pages = [str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md"))]
    assert sorted(configured) == pages


def public_things(module) -> dict[int, str]:
    """What a package offers, by identity: the names that its `__init__` imports `as` themselves."""
    names = re.findall(r"\b(\w+) as \1\b", pathlib.Path(module.__file__).read_text("utf-8"))
    things = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {id(t): f"{module.__name__}.{n}" for n, t in things.items() if not inspect.ismodule(t)}


def test_reference_has_every_public_name_once():
    packages = [*(f"kernelode.{n}" for n in ("ensemble", "learning", "plot", "baselines")), "kernelode"]
    public = {}
    for package in map(importlib.import_module, packages):
        public |= public_things(package)
    assert id(ko.propagate) in public and id(ko.ensemble.sample) in public

    written = [n for page in API_PAGES for n in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)]
    found = {}
    for name in written:
        package, _, last = name.rpartition(".")
        thing = getattr(importlib.import_module(package), last, None)
        assert id(thing) in public, f"{name} is on a reference page, and not public"
        assert id(thing) not in found, f"{name} is there twice, also as {found.get(id(thing))}"
        found[id(thing)] = name
    missing = sorted(name for key, name in public.items() if key not in found)
    assert not missing, f"not on any reference page: {missing}"
