#!/usr/bin/env python
"""Write docs/configuration.md from the comments at the config keys and in the config files.

    python tools/config_reference.py [--check]

The keys are those of canon_seg/config/keys.py, and of canon_seg/points/config.py. The comment above
a key says what it is. Keys that follow each other under one comment share it, if
it names them. With --check nothing is written, and the exit status is 1 if the page is not up to
date.
"""

import argparse
import ast
import sys
from pathlib import Path

import yaml

from canon_seg.errors import InputError, run_main
from canon_seg.io.files import write_text

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "canon_seg" / "config" / "keys.py"
POINTS_SOURCE = ROOT / "canon_seg" / "points" / "config.py"
PAGE = ROOT / "docs" / "configuration.md"
ROOT_NODE = "cfg"

HEAD = """# Configuration

<!-- Written by tools/config_reference.py from the comments in canon_seg/config/keys.py, in
canon_seg/points/config.py and in the config files: change those. -->

A config is detectron2's, with the keys below beside [detectron2's own](
https://detectron2.readthedocs.io/en/latest/modules/config.html). Where detectron2 is not installed,
the demo and the evaluation of poses read the same files, for a SAM behind a canonicalizer:
detectron2's keys are then taken as they are, and only those that SAM needs are used.

A config comes from a file (`--config-file`, a path or the bare name of one of the files below), and
options `KEY VALUE` at the end of a command go before the file. Without `MODEL.DEVICE` in either of
them a GPU is used where there is one, else the CPU. A path of the form `canon_seg://NAME` is a file
that comes with the package.
"""


POINTS_HEAD = """
# Keys of point clouds

`canon-seg-eval-points` has a config of its own, with these keys and no others.
"""


def read_keys(source, function_name="add_canon_seg_config"):
    """Read what the function in a module's text that makes a config says of each key.

    Args:
        source: Python text.
        function_name: the function's name.

    Returns:
        dict from dotted key, in the order of the text, to (default, comment). The default is the
        text of the expression, None for a node; the comment is one line, "" where there is none.
    """
    lines = source.splitlines()
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == function_name
    )
    keys, shared = {}, ""
    for statement in function.body:
        if not isinstance(statement, ast.Assign):
            continue
        target = ast.unparse(statement.targets[0])
        if not target.startswith(f"{ROOT_NODE}."):
            continue
        name = target.removeprefix(f"{ROOT_NODE}.")
        comment = _comment_above(lines, statement.lineno - 1)
        follows = not comment and lines[statement.lineno - 2].strip().startswith(f"{ROOT_NODE}.")
        if follows and name.rpartition(".")[2] in shared:
            comment = shared
        shared = comment
        value = ast.unparse(statement.value)
        keys[name] = (None if value == "CN()" else value.replace("'", '"'), comment)
    return keys


def _comment_above(lines, index):
    found = []
    while (line := lines[index - 1].strip()).startswith("# "):
        found.insert(0, line[2:])
        index -= 1
    return " ".join(found)


def format_keys(keys):
    """Format the keys as Markdown, a section for each node."""
    sections = {}
    for name, (default, comment) in keys.items():
        if "." not in name and default is not None:
            continue  # the version of the format
        if default is None:
            sections.setdefault(name, ([], comment))
        else:
            sections.setdefault(name.rpartition(".")[0], ([], ""))[0].append(
                (name, default, comment)
            )
    text = []
    for section, (rows, comment) in sections.items():
        if not (rows or comment):
            continue  # a node of nodes
        text += [f"\n## {section}\n", *([f"{comment}\n"] if comment else [])]
        text += ["| key | default | |", "|---|---|---|"]
        for name, default, explanation in rows:
            key = name.removeprefix(f"{section}.")
            text.append(f"| `{key}` | `{_cell(default)}` | {_cell(explanation)} |")
    return "\n".join(text) + "\n"


def format_files(folder):
    """Format the config files below a folder as Markdown, each with the comment at its head.

    The result is a table.
    """
    rows = ["\n## Config files\n", "| file | base | |", "|---|---|---|"]
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        contents = yaml.safe_load(text)
        if "VERSION" not in contents and "_BASE_" not in contents and "MODEL" not in contents:
            continue  # no config of the project, but a list of runs
        lines = text.splitlines()
        end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        # Indented lines are commands; the comment's words end before them.
        words = [line[2:] for line in lines[:end]]
        words = words[: next((i for i, line in enumerate(words) if line.startswith(" ")), end)]
        sentences = " ".join(words)
        whole = sentences[: sentences.rfind(".") + 1]
        name = path.relative_to(folder).as_posix()
        base = f"`{contents['_BASE_']}`" if "_BASE_" in contents else ""
        rows.append(f"| `{name}` | {base} | {_cell(whole)} |")
    return "\n".join(rows) + "\n"


def _cell(text):
    return text.replace("|", "\\|")


def page():
    """Return the text of the page.

    Raises:
        InputError: naming the keys that have no comment.
    """
    return (
        HEAD
        + format_keys(_commented_keys(SOURCE, "add_canon_seg_config"))
        + format_files(ROOT / "configs")
        + POINTS_HEAD
        + format_keys(_commented_keys(POINTS_SOURCE, "points_config"))
    )


def _commented_keys(path, function_name):
    keys = read_keys(path.read_text(encoding="utf-8"), function_name)
    bare = [name for name, (default, comment) in keys.items() if default and not comment]
    if bare:
        raise InputError(
            f"{path.relative_to(ROOT)}: {', '.join(bare)} without a comment; write above each "
            "key what it is"
        )
    return keys


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    args = parser.parse_args()
    new = page()
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == new:
        return 0
    if args.check:
        print(
            f"{PAGE.relative_to(ROOT)} is not up to date: run python tools/config_reference.py",
            file=sys.stderr,
        )
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    write_text(PAGE, new)
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    run_main(main)
