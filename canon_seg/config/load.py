"""Load configs from YAML files and options, without detectron2 and without running code in them."""

import ast
import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode

from canon_seg.config.assets import embedded_configs, packaged_config, resolve_config
from canon_seg.config.detectron2_keys import VERSION, detectron2_keys
from canon_seg.config.keys import add_canon_seg_config
from canon_seg.errors import InputError

# What yacs, fvcore and yaml say of wrong keys, values, types and files; recursion is of deep lists.
_ERRORS = (
    *(AssertionError, AttributeError, KeyError, TypeError, ValueError),
    *(OSError, RecursionError, yaml.YAMLError),
)


def default_config():
    """Make the config with the defaults of the project's keys, for which detectron2 is not needed.

    Returns:
        fvcore's ``CfgNode``: the project's keys, beside those of detectron2's that
        :mod:`canon_seg.config.detectron2_keys` names.
    """
    cfg = detectron2_keys()
    add_canon_seg_config(cfg)
    return cfg


def load_config(config_file, options=(), defaults=None):
    """Load a complete config from a file and command-line options.

    Args:
        config_file: path of a YAML file, name of one that comes with the package (see
            :func:`canon_seg.config.assets.resolve_config`), or "" for the defaults.
            It may name others as its _BASE_. Tags that run code are refused except in the files
            that come with detectron2.
        options: flat sequence KEY VALUE KEY VALUE ...
        defaults: ``CfgNode`` to fill and return; None for :func:`default_config`, which is enough
            for a SAM behind a canonicalizer. With detectron2's keys and their defaults:
            :func:`canon_seg.d2.config.load_config`.

    Returns:
        ``CfgNode`` of the class of ``defaults``, not frozen.

    Raises:
        InputError: naming the file or the key.
    """
    cfg = default_config() if defaults is None else defaults
    if config_file:
        config_file = existing_config(config_file)
        try:
            needed = _keys_with_values(cfg)
            _merge(cfg, config_file)
            _check_values(cfg, needed)
        except _ERRORS as error:
            raise InputError(f"{config_file}: {_reason(error, cfg)}") from error
    options = list(options)
    if len(options) % 2:
        raise InputError(f"options are pairs KEY VALUE; the last of {options} stands alone")
    _check_lists(cfg, options)
    try:
        needed = _keys_with_values(cfg)
        _make_room(cfg, options)
        cfg.merge_from_list(_with_floats(cfg, options))
        _check_values(cfg, needed)
    except _ERRORS as error:
        raise InputError(f"options {' '.join(map(str, options))}: {_reason(error, cfg)}") from error
    return cfg


def existing_config(name):
    """Find the path of a config file as :func:`canon_seg.config.assets.resolve_config` does.

    Raises:
        InputError: naming what there is, if there is no such file.
    """
    path = resolve_config(name)
    if not Path(path).is_file():
        raise InputError(
            f"--config-file: there is no file {path}, nor is that the name of a config that comes "
            f"with canon_seg ({', '.join(embedded_configs())})"
        )
    return path


def given_keys(config_file, node_class=CfgNode):
    """Read what a config file and its bases say, without any defaults.

    Args:
        config_file: as :func:`load_config` takes it, and has taken it.
        node_class: class of the config, which opens the files: detectron2's knows more addresses.

    Returns:
        nested dict of the keys given.
    """
    return _read(resolve_config(config_file), node_class) if config_file else {}


def _merge(cfg, config_file):
    contents = _read(config_file, type(cfg))
    whole = _whole_for_floats(cfg, contents)
    # yacs takes 0.5 for a float, but no 1: for the merge, the key holds an integer.
    for node, key in whole:
        node[key] = 0
    if contents.get("VERSION") == cfg.VERSION:
        cfg.merge_from_other_cfg(type(cfg)(contents))
    else:  # detectron2 converts other versions, and fvcore knows none
        cfg.merge_from_file(config_file)
    for node, key in whole:
        node[key] = float(node[key])
    if cfg.VERSION != VERSION:
        raise ValueError(
            f"VERSION is {cfg.VERSION}; write it for version {VERSION}, or install detectron2, "
            "which converts configs of version 1"
        )


def _keys_with_values(node, prefix=""):
    """List the keys, as A.B.C, that hold a number, a switch or a list: none of these may be None.

    yacs takes None for any of them, and a text may well be None.
    """
    keys = []
    for key, value in node.items():
        if isinstance(value, CfgNode):
            keys += _keys_with_values(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, list, tuple)):
            keys.append(prefix + key)
    return keys


def _check_values(cfg, needed):
    """Raise ValueError that names the keys of ``needed`` that are None after a merge."""
    empty = []
    for key in needed:
        node = cfg
        for part in key.split("."):
            node = node[part]
        if node is None:
            empty.append(key)
    if empty:
        raise ValueError(
            f"{', '.join(empty)} has no value; give one, or leave the key out for its default"
        )


def _whole_for_floats(cfg, given):
    """List (node, key) of a config where a file gives a whole number and the key holds a float.

    Args:
        cfg: ``CfgNode`` before the file is merged.
        given: nested dict of the file's keys.
    """
    found = []
    for key, value in given.items():
        own = cfg.get(key)
        if isinstance(own, CfgNode) and isinstance(value, dict):
            found += _whole_for_floats(own, value)
        elif isinstance(own, float) and type(value) is int:
            found.append((cfg, key))
    return found


def _check_lists(cfg, options):
    """Raise InputError that says how to write a list, where one word is given for one."""
    for key, value in zip(map(str, options[::2]), options[1::2], strict=True):
        node = cfg
        for part in key.split("."):
            node = node.get(part) if isinstance(node, CfgNode) else None
        if not isinstance(node, (list, tuple)) or not isinstance(value, str):
            continue
        try:
            meant = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            meant = value
        if not isinstance(meant, (list, tuple)):
            proper = f"[{meant!r}]" if isinstance(node, list) else f"({meant!r},)"
            raise InputError(
                f"options {key} {value}: it takes a list, and {value} is one thing; give "
                f'{key} "{proper}"'
            )


def _with_floats(cfg, options):
    """Make floats of whole numbers where the key holds a float: yacs takes 0.5, but no 1."""
    options = list(options)
    for index in range(0, len(options), 2):
        node = cfg
        for part in str(options[index]).split("."):
            node = node.get(part) if isinstance(node, CfgNode) else None
        if isinstance(node, float) and not isinstance(options[index + 1], float):
            try:
                options[index + 1] = float(int(options[index + 1]))
            except (TypeError, ValueError):  # no whole number: whatever it is, it stays
                continue
    return options


def _make_room(cfg, options):
    """Add the keys of the options where a node takes any: yacs asks that they are there before."""
    for key in map(str, options[::2]):
        node, is_open = cfg, False
        *path, last = key.split(".")
        for part in path:
            is_open = is_open or node.is_new_allowed()
            if is_open:
                node.setdefault(part, type(cfg)())
            node = node.get(part)
            if not isinstance(node, CfgNode):
                break
        else:
            if is_open or node.is_new_allowed():
                node.setdefault(last, None)


def _read(filename, node_class):
    """Read a YAML file and its bases as a dict, and refuse what is no safe or no complete config.

    detectron2 itself falls back to an unsafe loader. One file of its model zoo needs that. A base
    that is not beside the file is looked for among the configs of the package, by the same name.
    """
    including = []

    class YamlWithoutCode(node_class):
        @classmethod
        def load_yaml_with_base(cls, filename, allow_unsafe=False):
            if including and "://" not in filename and not Path(filename).is_file():
                name = os.path.relpath(filename, Path(including[-1]).parent)
                packaged = packaged_config(name)
                if packaged is None:
                    raise ValueError(
                        f"_BASE_: there is no file {filename}, nor is {name} the name of a config "
                        f"that comes with canon_seg ({', '.join(embedded_configs())})"
                    )
                filename = packaged
            if os.path.realpath(filename) in map(os.path.realpath, including):
                raise ValueError(f"_BASE_: {filename} is a base of itself; name another file")
            trusted = _is_in_model_zoo(filename)
            including.append(filename)
            try:
                contents = super().load_yaml_with_base(filename, allow_unsafe=trusted)
            except TypeError:  # an empty file
                contents = None
            finally:
                including.pop()
            if not isinstance(contents, dict):
                raise ValueError(
                    f"{filename} holds no keys; write KEY: VALUE lines, as in configs/"
                )
            return contents

    return YamlWithoutCode.load_yaml_with_base(filename)


def _is_in_model_zoo(filename):
    """Return whether a file came with the installed detectron2, which is not imported for it."""
    try:
        spec = find_spec("detectron2")
    except ImportError:
        return False
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return any(
        os.path.realpath(filename).startswith(os.path.realpath(f"{folder}/model_zoo") + os.sep)
        for folder in folders
    )


def _reason(error, cfg):
    """Say in a line what was wrong, with the known key that an unknown one is most like."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()) or type(error).__name__
    text = re.sub("Non-existent (config )?key", "unknown config key", text)
    unknown = re.fullmatch(r"unknown config key: (\S+)", text)
    near = get_close_matches(unknown[1], all_keys(cfg), 1, 0.8) if unknown else []
    return f"{text}; did you mean {near[0]}?" if near else text


def all_keys(node, prefix=""):
    """List all keys of a config as A.B.C, those of nodes too."""
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += all_keys(value, f"{prefix}{key}.")
    return keys
