"""The documents: commands that parse, Python that runs, examples that are true, pages up to date.

What runs the commands themselves is `make docs-check`.
"""

import argparse
import ast
import doctest
import re
import runpy
import shlex
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tomllib
from optional import need

import canon_seg
from canon_seg.cli import commands as console
from canon_seg.config.load import load_config as load_plain_config
from canon_seg.d2.config import load_config
from canon_seg.errors import InputError
from canon_seg.points.config import points_config

from detectron2.config import get_cfg

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load_tool(name):
    spec = spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


check_docs, config_reference = load_tool("check_docs"), load_tool("config_reference")

BLOCKS = [
    block
    for document in check_docs.DOCUMENTS
    for block in check_docs.read_blocks(document, (ROOT / document).read_text(encoding="utf-8"))
]
# Those with >>> are one doctest for each page.
PYTHON = [block for block in BLOCKS if block.language == "python" and ">>>" not in block.text]
COMMANDS = [
    pytest.param(command, id=f"{block.place} {command[:40]}")
    for block in BLOCKS
    if block.language == "bash"
    for line in check_docs.commands(block)
    for command in re.split(r"\s*&&\s*", line)
]


class _Parsed(BaseException):
    """Ends a script where it has parsed its arguments."""

    def __init__(self, arguments):
        self.arguments = arguments


@pytest.fixture
def parse(monkeypatch):
    """A function from a command's words to the arguments that the command's own parser makes."""
    for name in ("parse_args", "parse_intermixed_args"):
        parse_args = getattr(argparse.ArgumentParser, name)

        def stop(parser, args=None, namespace=None, parse_args=parse_args):
            raise _Parsed(parse_args(parser, args, namespace))

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)
    entry_points = {
        function.__doc__.removeprefix("Run ").removesuffix("."): function
        for function in vars(console).values()
        if getattr(function, "__doc__", None) and function.__doc__.startswith("Run canon-seg-")
    }

    def run(words):
        if words[0] in entry_points:
            start = entry_points[words[0]]
        else:
            assert words[0].endswith("python"), words
            words = words[1:]
            path = ROOT / words[0]
            assert path.is_file(), f"there is no {words[0]}"

            def start():
                runpy.run_path(str(path), run_name="__main__")

        monkeypatch.setattr(sys, "argv", list(words))
        with pytest.raises(_Parsed) as parsed:
            start()
        return parsed.value.arguments

    return run


def make_targets():
    return re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)


def script_of(words):
    return next((Path(word).name for word in words if word.endswith(".py")), "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_would_start(command, parse, capsys):
    words = shlex.split(command)
    if words[:2] == ["git", "clone"] or words[0] == "cd":
        return
    if words[0] == "make":
        assert [word for word in words[1:] if "=" not in word and word not in make_targets()] == []
        return
    if words[:2] == ["pip", "install"]:
        for word in words:
            if word.startswith(".["):
                assert set(word[2:-1].split(",")) <= set(PROJECT["optional-dependencies"])
            assert not word.startswith("requirements/") or (ROOT / word).is_file()
        return
    try:
        arguments = parse(words)
    except SystemExit:
        pytest.fail(f"{command}\n{capsys.readouterr().err}")
    options = getattr(arguments, "options", getattr(arguments, "opts", []))
    for name, values in vars(arguments).items():  # flags that take lists must not eat the options
        if isinstance(values, list) and values is not options:
            assert not [value for value in values if re.match(r"[A-Z]+\.[A-Z]", str(value))], name
    config_file = getattr(arguments, "config_file", None)
    assert not config_file or config_file.startswith("configs/") or "/" not in config_file
    if script_of(words) == "eval_points.py":  # its config has keys of its own
        load_plain_config(config_file, options, points_config())
    else:
        load_config(config_file or "sam_c4.yaml", options)


def test_commands_that_are_wrong_do_not_pass(parse, capsys):
    for command in ("python tools/eval_rotated.py --no-such-flag", "python tools/split_coco.py"):
        with pytest.raises(SystemExit):
            parse(command.split())
    with pytest.raises(AssertionError, match="no tools/nothing.py"):
        parse(["python", "tools/nothing.py"])


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_of_the_documents_runs(block, tmp_path, monkeypatch, capsys):
    code = compile(block.to_run, block.place, "exec")
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module == "canon_seg":
            for name in node.names:
                assert getattr(canon_seg, name.name)
    if block.skip:
        return
    check_docs.make_stand_ins(tmp_path, block.to_run)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": block.place})


@pytest.mark.parametrize(
    "document", sorted({block.document for block in BLOCKS if ">>>" in block.text})
)
def test_examples_are_true(document):
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    if document == "docs/libraries.md":
        need("supervision")
        need("jinja2")  # for the model card
    # The end of a block is the end of an output.
    text = "\n".join("" if line.startswith("```") else line for line in lines)
    example = doctest.DocTestParser().get_doctest(text, {}, document, document, 0)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 5 and result.failed == 0


def test_configuration_page_is_up_to_date():
    assert config_reference.PAGE.read_text(encoding="utf-8") == config_reference.page(), (
        "run python tools/config_reference.py"
    )


def test_configuration_page_has_every_key():
    def leaves(node, prefix=""):
        for key, value in node.items():
            yield from (
                leaves(value, f"{prefix}{key}.") if hasattr(value, "items") else [f"{prefix}{key}"]
            )

    keys = config_reference.read_keys(config_reference.SOURCE.read_text(encoding="utf-8"))
    documented = {name for name, (default, _) in keys.items() if default is not None}
    assert documented == set(leaves(load_config(""))) - set(leaves(get_cfg()))


def test_a_key_without_a_comment_is_noticed(tmp_path, monkeypatch):
    source = (
        "def add_canon_seg_config(cfg):\n"
        "    # One, and OTHER.\n    cfg.A.ONE = 1\n    cfg.A.OTHER = 2\n    cfg.A.THIRD = 3\n"
    )
    path = tmp_path / "config.py"
    path.write_text(source)
    monkeypatch.setattr(config_reference, "SOURCE", path)
    monkeypatch.setattr(config_reference, "ROOT", tmp_path)
    with pytest.raises(InputError, match="A.THIRD without a comment"):
        config_reference.page()


@pytest.mark.parametrize("document", check_docs.DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    for target in re.findall(r"\]\(\s*([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]
            assert anchor in slugs, target


def test_comments_before_blocks_are_understood():
    text = (
        "<!-- docs-check: a b -> c -->\n```bash\nx a b\\\n  y  # why\n```\n\n"
        "<!-- docs-check: skip because of this -->\n```python\nz\n```\n"
    )
    first, second = check_docs.read_blocks("page", text)
    assert first.to_run == "x c\\\n  y  # why\n" and first.place == "page:2"
    assert check_docs.commands(first) == ["x a b   y"]
    assert (second.skip, second.language) == ("of this", "python")
    with pytest.raises(InputError, match="no docs-check comment"):
        check_docs.read_blocks("page", "<!-- docs-check: skip this -->\n```bash\nx\n```\n")
    with pytest.raises(InputError, match="a block must follow"):
        check_docs.read_blocks("page", "<!-- docs-check: skip because x -->\nwords\n")
