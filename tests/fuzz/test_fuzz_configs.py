"""Configs of any kind: a config whose values have the types of the defaults, or a message."""

import pytest
from fuzzing import attempt, fuzz
from fvcore.common.config import CfgNode
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.config.load import all_keys, default_config, load_config
from canon_seg.d2.config import load_config as load_with_detectron2

KEYS = sorted(all_keys(default_config()))
WORDS = st.one_of(
    st.sampled_from(KEYS),
    st.builds(lambda key, more: f"{key}.{more}", st.sampled_from(KEYS), st.text(max_size=4)),
    st.text(max_size=8),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["1", "-1", "0.5", "1e400", "nan", "inf", "None", "True", "''", "[]", "()", "{}", "[1, 2]"]
    ),
    st.sampled_from(
        ["(", "[[", "{1: 2}", "!!python/object:os.system", "\x00", "é", "a b", "&a *a"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "config.yaml"


def check_types(cfg, like):
    """Check that each key that holds a number or a section by default holds one now."""
    for key, value in like.items():
        if isinstance(value, CfgNode):
            assert isinstance(cfg[key], CfgNode)
            check_types(cfg[key], value)
        elif isinstance(value, (bool, int, float)):
            assert type(cfg[key]) is type(value), key


@fuzz
@given(st.lists(st.tuples(WORDS, TEXTS), max_size=3), st.booleans())
def test_options_give_a_config_or_a_message_that_names_them(pairs, odd):
    words = [word for pair in pairs for word in pair]
    if odd and words:
        words.pop()
    cfg, message = attempt(load_config, "", words)
    if message is None:
        check_types(cfg, default_config())
    else:
        named = [all(word in message for word in pair) for pair in pairs]
        assert "options" in message and (odd or any(named))


def lines():
    """Lines of YAML: sections, values, and what is neither."""
    return st.one_of(
        st.builds(
            lambda key, text: (
                "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate(key.split(".")))
                + f" {text}"
            ),
            st.sampled_from(KEYS),
            TEXTS,
        ),
        st.builds(lambda key, text: f"{key}: {text}", WORDS, TEXTS),
        st.sampled_from(
            ["_BASE_: nowhere.yaml", "_BASE_: config.yaml", "VERSION: 1", "- a", "---"]
        ),
        st.text(max_size=20),
    )


@fuzz
@given(st.lists(lines(), max_size=4).map("\n".join), st.sampled_from(["", "", "utf-16", "cut"]))
def test_files_give_a_config_or_a_message_that_names_them(path, text, spoilt):
    contents = text.encode("utf-8", errors="surrogatepass")
    if spoilt == "utf-16":
        contents = text.encode("utf-16", errors="surrogatepass")
    elif spoilt == "cut":
        contents = contents[: len(contents) // 2]
    path.write_bytes(contents)
    for load in (load_config, load_with_detectron2):
        cfg, message = attempt(load, str(path))
        if message is None:
            check_types(cfg, default_config())
        else:
            assert str(path) in message
