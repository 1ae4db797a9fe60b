"""The launch scripts with stand-ins for srun, squeue, scontrol, gcloud and kubectl."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def write_tool(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path):
    """A folder of programs that comes first in PATH, and `calls`, what was asked.

    `python` is one of them: it notes its words and what JAX would read, and leaves.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    write_tool(folder, "scontrol", f'echo "$@" >> {tmp_path}/requeued')
    write_tool(folder, "squeue", "echo ${STATE:-RUNNING}")
    note = "${VIS_JAX_PROCESS_ID-}/${VIS_JAX_NUM_PROCESSES-}/${VIS_JAX_DISTRIBUTED-}"
    write_tool(folder, "python", f'echo "{note} $*" >> {tmp_path}/called')
    return folder


def environ_of(tools: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"} | more


def launch(tools: Path, *words: str, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", *words], cwd=LAUNCH, env=environ_of(tools, **environ),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def called(tools: Path) -> list[str]:
    """Returns the arguments of `python`, by process."""
    path = tools.parent / "called"
    return sorted(path.read_text().splitlines()) if path.exists() else []


JOBS = {
    "train": "train --config a.py --workdir gs://b/r --x=(1,2)",
    "evaluate": "evaluate --workdir gs://b/r --output out",
    "data": "data build_tfds --root=it's",
}
WAIT = 30.0  # seconds, on a busy machine


def wait_for(path: Path, content: str = "") -> None:
    """Returns once a file is there and has this in it; fails after WAIT."""
    end = time.monotonic() + WAIT
    while not path.exists() or content not in path.read_text():
        assert time.monotonic() < end, f"{path}: no {content!r} within {WAIT} s"
        time.sleep(0.01)


SLURM = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("job", JOBS)
def test_each_place_runs_each_command(tools, job):
    words = shlex.split(JOBS[job].replace("'", "\\'").replace("(1,2)", "'(1,2)'"))
    expected = f"-m vis_jax.main {JOBS[job]}"
    assert launch(tools, "local.sh", *words).returncode == 0
    assert called(tools) == [f"// {expected}"]

    write_tool(
        tools, "srun", f'echo "$*" > {tools.parent}/srun; "${{@: -{len(words) + 3}}}"'
    )
    assert launch(tools, "slurm.sh", *words, **SLURM).returncode == 0
    assert called(tools)[1:] == [f"// {expected}"]
    nodes = "--nodes 1 --ntasks 1 " if job == "data" else ""
    asked = (tools.parent / "srun").read_text().strip()
    assert asked == f"{nodes}python {expected}"


@pytest.mark.parametrize("job", JOBS)
def test_a_tpu_runs_a_command_on_every_host_or_the_first(tools, job, tmp_path):
    home = tmp_path / "home" / "vis_jax"
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "python").symlink_to(tools / "python")
    write_tool(
        tools,
        "gcloud",
        f'echo "${{@:1:9}}" > {tmp_path}/gcloud; export HOME={home.parent}\n'
        'bash -c "${@: -1}"',
    )
    words = JOBS[job].replace("it's", "its").split()
    done = launch(tools, "tpu.sh", "my-v5e", "a-zone", *words)
    assert done.returncode == 0, done.stderr
    worker, together = ("0", "") if job == "data" else ("all", "auto")
    assert (tmp_path / "gcloud").read_text().split() == (
        f"compute tpus tpu-vm ssh my-v5e --zone a-zone --worker {worker}".split()
    )
    assert called(tools) == [f"//{together} -m vis_jax.main {' '.join(words)}"]


def test_the_tasks_of_an_array_take_a_share_each(tools):
    write_tool(tools, "srun", '"$@"')
    for first, task in ((0, 2), (1, 3)):
        array = {
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_COUNT": "16",
        }
        done = launch(tools, "slurm.sh", *JOBS["evaluate"].split(), **SLURM, **array)
        assert done.returncode == 0, done.stderr
    expected = f"// -m vis_jax.main {JOBS['evaluate']} --shard 3/16"
    assert called(tools) == [expected, expected]


def kubernetes(tools: Path, hosts: str, *words: str, **environ: str) -> dict:
    """The manifest that `kubectl` gets."""
    manifest = tools.parent / "manifest.yaml"
    write_tool(
        tools, "kubectl", f'echo "$*" > {tools.parent}/kubectl; cat > {manifest}'
    )
    start = ("kubernetes.sh", "ifr", "eu.gcr.io/me/it:1", hosts)
    done = launch(tools, *start, *words, **environ)
    assert done.returncode == 0, done.stderr
    assert (tools.parent / "kubectl").read_text() == "apply -f -\n"
    return yaml.safe_load(manifest.read_text())


def environment_of_pod(pod: dict, *, index: int) -> dict[str, str]:
    """As Kubernetes makes it."""
    field = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    out = {}
    for variable in pod["env"]:
        if "valueFrom" in variable:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": field}}
            out[variable["name"]] = str(index)
        else:
            out[variable["name"]] = variable["value"]
    return out


@pytest.mark.parametrize("job", JOBS)
def test_a_jobset_starts_a_process_of_one_run_on_each_host(tools, job):
    """Each pod is started here, with the environment that it would have."""
    hosts = 1 if job == "data" else 3
    words = [*JOBS[job].split(), "--y=a b & 'c'"]
    found = kubernetes(tools, str(hosts), *words)
    assert (found["apiVersion"], found["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    assert found["metadata"] == {"name": "ifr"}
    assert found["spec"]["network"]["enableDNSHostnames"] is True
    (group,) = found["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == hosts
    assert spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "vis_jax.main", *words]
    assert container["image"] == "eu.gcr.io/me/it:1"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]} == {"shm"}
    for index in range(hosts):
        environ = environment_of_pod(container, index=index)
        host = f"{found['metadata']['name']}-{group['name']}-0-0.ifr"
        assert environ.pop("VIS_JAX_COORDINATOR") == f"{host}:8476"
        subprocess.run(
            container["command"], env=environ_of(tools, **environ), check=True
        )
    expected = [f"{i}/{hosts}/ -m vis_jax.main {' '.join(words)}" for i in range(hosts)]
    assert called(tools) == expected


def test_a_jobset_ends_on_a_mistake_and_starts_again_otherwise(tools):
    environ = {"VOLUME": "mine", "RESOURCE": "google.com/tpu", "DEVICES": "4"}
    spec = kubernetes(tools, "2", *JOBS["train"].split(), **environ)["spec"]
    assert spec["failurePolicy"]["maxRestarts"] > 0
    assert spec["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [2, 3]
    pod = job["template"]["spec"]
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["restartPolicy"] == "Never"
    assert pod["shareProcessNamespace"] is True
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "data"]
    assert claims == [{"claimName": "mine"}]
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"data": "/data", "shm": "/dev/shm"}


def test_a_command_of_one_process_is_refused_on_several_hosts(tools):
    for words in (("local.sh", "-n", "2"), ("kubernetes.sh", "a", "image", "2")):
        done = launch(tools, *words, "data", "check")
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
    assert called(tools) == []


def test_without_words_a_script_prints_how_to_use_it(tools):
    for script in ("local", "slurm", "tpu", "kubernetes"):
        for words in ((), ("--help",)):
            done = launch(tools, f"{script}.sh", *words)
            assert done.returncode == 2
            assert f"launch/{script}.sh" in done.stdout
            assert "set -euo" not in done.stdout
            assert "#SBATCH" not in done.stdout
    for words in (("-n",), ("-n", "2"), ("-n", "x", "train")):
        done = launch(tools, "local.sh", *words)
        assert (done.returncode, done.stdout[:4]) == (2, "Runs")


def test_local_processes_find_each_other(tools):
    """Two real processes, which meet and are told to stop."""
    code = """
import fcntl, os, signal, time
from vis_jax.training.distributed import initialise_distributed, wait_for_all
number = os.environ["VIS_JAX_PROCESS_ID"]
lock = open(os.environ["LOCK"], "w")
if number == "1":
    fcntl.flock(lock, fcntl.LOCK_EX)
def stop(*unused):
    # JAX aborts a process whose coordinator is gone: process 0 waits until 1 has ended.
    if number == "0":
        fcntl.flock(lock, fcntl.LOCK_EX)
    os._exit(143)
assert initialise_distributed()
wait_for_all("here")
signal.signal(signal.SIGTERM, stop)
os.write(1, number.encode() + b"\\n")  # one piece
time.sleep(60)
"""
    write_tool(tools, "python", f"exec {sys.executable} -c {shlex.quote(code)}")
    process = subprocess.Popen(
        ["bash", "local.sh", "-n", "2", "train"], cwd=LAUNCH, text=True,
        env=environ_of(tools, PYTHONPATH=str(ROOT), LOCK=str(tools / "lock")),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert {process.stdout.readline().strip() for _ in range(2)} == {"0", "1"}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 143


def run_slurm(tools: Path, srun: str, *, term: bool = False, **environ: str) -> int:
    """The code of a job whose `srun` touches $STARTED when it is ready for SIGTERM."""
    started = tools.parent / "started"
    write_tool(tools, "srun", srun)
    process = subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sh"), "train", "--config", "c.py"],
        env=environ_of(tools, **SLURM, STARTED=str(started), **environ),
    )
    try:
        if term:
            wait_for(started)
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout=WAIT)
    finally:
        process.kill()


WORKS = 'touch "$STARTED"; for _ in {1..600}; do sleep 0.05; done'
SAVES = f"trap 'sleep 0.5; exit 143' TERM; {WORKS}"


@pytest.mark.parametrize(
    ("srun", "term", "code", "requeued"),
    [
        ("exit 0", False, 0, False),
        ("exit 2", False, 2, False),
        ("exit 143", False, 143, True),  # the signal reached the run alone
        (SAVES, True, 143, True),
        # During imports: nothing handles it.
        ('touch "$STARTED"; exec sleep 9', True, 143, True),
        (f"trap 'exit 2' TERM; {WORKS}", True, 2, False),
        (f"trap 'exit 0' TERM; {WORKS}", True, 0, False),
    ],
)
def test_slurm_requeues_what_was_stopped(tools, srun, term, code, requeued):
    assert run_slurm(tools, srun, term=term) == code
    assert (tools.parent / "requeued").exists() == requeued
    if requeued:
        assert (tools.parent / "requeued").read_text() == "requeue 7\n"


def test_slurm_requeues_one_task_of_an_array(tools):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert run_slurm(tools, "exit 143", **array) == 143
    assert (tools.parent / "requeued").read_text() == "requeue 7_3\n"


def test_slurm_gives_srun_the_cores_of_the_job(tools):
    note = f'echo "${{SRUN_CPUS_PER_TASK-none}}" >> {tools.parent}/cores'
    assert run_slurm(tools, note) == 0
    assert run_slurm(tools, note, SLURM_CPUS_PER_TASK="8") == 0
    assert (tools.parent / "cores").read_text() == "none\n8\n"


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
    words = ["launch/tpu.sh", "tpu", "zone", "train", "--x=a b"]
    process = subprocess.Popen(
        # These tests may run under nohup, where all ignore the end of a session.
        ["env", "--default-signal=HUP", "bash", *words],
        env=environ_of(tools),
        cwd=ROOT,
        start_new_session=True,
    )
    pid_file = home / "vis_jax" / "run.pid"
    try:
        wait_for(pid_file, "\n")
        os.killpg(process.pid, signal.SIGHUP)  # the end of the session
        process.wait(timeout=WAIT)
    finally:
        process.kill()
    wait_for(tmp_path / "trained", "auto -m vis_jax.main train --x=a b\n")


def test_no_script_calls_shell_words_it_cannot_parse():
    for script in LAUNCH.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
