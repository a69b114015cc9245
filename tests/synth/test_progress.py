from synth.progress import Progress


def test_plain_lines_at_quarters_where_there_is_no_terminal(capsys):
    with Progress() as progress:
        progress.stage("synthesizing")
        for done in range(0, 101):
            progress.step(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("%")[0].strip() for line in lines[1:]] == ["25", "50", "75", "100"]
    assert "left" in lines[1]


def test_quiet_says_nothing(capsys):
    with Progress(quiet=True) as progress:
        progress.stage("synthesizing")
        progress.step(1, 1)
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal_ends_whole(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress() as progress:
        progress.stage("fitting")
        progress.stage("synthesizing")
        progress.step(5, 10)
    assert "synthesizing" in capsys.readouterr().err
