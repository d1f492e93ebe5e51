"""Progress: silent unless asked, plain lines off a terminal, calls for who wants them."""

from inrbridge import progress
from inrbridge.progress import Progress


def test_silent_by_default(capsys):
    with Progress(3, "work") as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


def test_one_line_an_interval_on_standard_error(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 11.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(100, "fit", True) as bar:
        bar.advance(10)
        bar.advance(30, psnr=41.23456)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == ["fit: 40/100 steps, 11 s  psnr 41.23", "fit: 40/100 steps, 12 s  psnr 41.23"]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(2, "fit", True, unit="field") as bar:
        bar.advance(2, psnr=40.0)
    assert "fit" in capsys.readouterr().err


def test_a_callable_gets_every_step():
    calls = []
    with Progress(None, "x", lambda *call: calls.append(call)) as bar:
        bar.advance()
        bar.advance(2, loss=0.5)
    assert calls == [(1, None, {}), (3, None, {"loss": 0.5})]
