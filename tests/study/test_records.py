"""What is kept of a study."""

import subprocess

from mmseg_resample.study import records


def test_git_state_of_results(tmp_path):
    """Results that a run wrote into its own repository do not make the next run one of changed code."""

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/a.json"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    (tmp_path / "results" / "a.json").write_text("2")
    assert records.git_state(tmp_path)["dirty"]
    assert not records.git_state(tmp_path / "results", results="results")["dirty"]
    (tmp_path / "code.py").write_text("2")
    assert records.git_state(tmp_path / "results", results="results")["dirty"]
