"""Progress: a bar where it is seen, else lines in the log."""

import logging
import sys
from types import SimpleNamespace

from cderetrieval import progress_log, runtime


def test_a_log_gets_a_line_now_and_then(monkeypatch, caplog):
    monkeypatch.delenv("CDE_PROGRESS", raising=False)
    monkeypatch.setattr(progress_log, "EVERY", 0.0)
    with caplog.at_level(logging.INFO, "cderetrieval"), runtime.progress(range(4), "embedding documents") as bar:
        for _ in range(4):
            bar.update(1)
    assert "embedding documents:  50% 2/4" in caplog.text
    caplog.clear()
    monkeypatch.setattr(progress_log, "EVERY", 30.0)
    assert list(runtime.progress(range(4), "x")) == [0, 1, 2, 3]
    assert caplog.text == ""


def test_what_silences_and_what_shows_it(monkeypatch, capsys):
    monkeypatch.setenv("CDE_PROGRESS", "0")
    assert runtime.progress(range(3), "x").disable
    monkeypatch.setenv("CDE_PROGRESS", "1")
    assert list(runtime.progress(range(3), "shown")) == [0, 1, 2]
    assert "shown" in capsys.readouterr().err
    monkeypatch.delenv("CDE_PROGRESS")
    assert runtime.progress(range(3), "x", show=False).disable
    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object(), config={}))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert not isinstance(runtime.progress(range(3), "x"), progress_log.LoggedProgress)
