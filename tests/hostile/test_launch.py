"""The launch scripts with stand-ins for srun, squeue, scontrol and gcloud."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def write_tool(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path):
    """A folder of programs that comes first in PATH, and `calls`, what was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_tool(folder, "scontrol", f'echo "$@" >> {tmp_path}/requeued')
    write_tool(folder, "squeue", "echo ${STATE:-RUNNING}")
    return folder


def start_slurm(tools: Path, **environ: str) -> subprocess.Popen:
    path = f"{tools}:{os.environ['PATH']}"
    here = {"PATH": path, "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    script = ROOT / "launch" / "train_slurm.sh"
    return subprocess.Popen(
        ["bash", str(script), "config.py", "work"], env=os.environ | here | environ
    )


def run_slurm(tools: Path, srun: str, *, term: bool = False, **environ: str) -> int:
    started = tools.parent / "started"
    write_tool(tools, "srun", f"touch {started}\n{srun}")
    process = start_slurm(tools, **environ)
    if term:
        while not started.exists():
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
    return process.wait(timeout=30)


SAVES = "trap 'sleep 0.5; exit 143' TERM; while true; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("srun", "term", "code", "requeued"),
    [
        ("exit 0", False, 0, False),
        ("exit 2", False, 2, False),
        ("exit 143", False, 143, True),  # the signal reached the run alone
        (SAVES, True, 143, True),
        ("exec sleep 9", True, 143, True),  # during imports: nothing handles it
        ("trap 'exit 2' TERM; while true; do sleep 0.05; done", True, 2, False),
        ("trap 'exit 0' TERM; while true; do sleep 0.05; done", True, 0, False),
    ],
)
def test_slurm_requeues_what_was_stopped(tools, srun, term, code, requeued):
    assert run_slurm(tools, srun, term=term) == code
    assert (tools.parent / "requeued").exists() == requeued
    if requeued:
        assert (tools.parent / "requeued").read_text() == "requeue 7\n"


def test_slurm_leaves_a_cancelled_job_alone(tools):
    assert run_slurm(tools, SAVES, term=True, STATE="COMPLETING") == 143
    assert not (tools.parent / "requeued").exists()


def test_tpu_trains_on_when_its_connection_ends(tools, tmp_path):
    home = tmp_path / "home"
    (home / "vis_jax" / ".venv" / "bin").mkdir(parents=True)
    write_tool(
        home / "vis_jax" / ".venv" / "bin",
        "python",
        f'sleep 1; echo "$VIS_JAX_DISTRIBUTED" "$@" > {tmp_path}/trained',
    )
    write_tool(tools, "gcloud", f'export HOME={home}; exec bash -c "${{@: -1}}"')
    words = ["launch/train_tpu.sh", "tpu", "zone", "a.py", "gs://b/r", "--x=a b"]
    process = subprocess.Popen(
        # These tests may run under nohup, where all ignore the end of a session.
        ["env", "--default-signal=HUP", "bash", *words],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        cwd=ROOT,
        start_new_session=True,
    )
    pid_file = home / "vis_jax" / "train.pid"
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGHUP)  # the end of the session
    process.wait(timeout=30)
    for _ in range(100):
        if (tmp_path / "trained").exists():
            break
        time.sleep(0.05)
    words = "auto -m vis_jax.main --config a.py --workdir gs://b/r --x=a b"
    time.sleep(0.05)
    assert (tmp_path / "trained").read_text().strip() == words


def test_no_script_calls_shell_words_it_cannot_parse():
    for script in (ROOT / "launch").glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
