"""Words that stand on a terminal while a command works."""

import io
import sys

import pytest

from canon_seg.cli.waiting import said


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_words_stand_there_while_it_takes_and_are_gone_afterwards(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ValueError, match="no"), said("loading ..."):
        assert sys.stderr.getvalue() == "loading ..."
        raise ValueError("no")
    assert sys.stderr.getvalue() == "loading ...\r           \r"


def test_nothing_is_written_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with said("loading ..."):
        pass
    assert sys.stderr.getvalue() == ""
