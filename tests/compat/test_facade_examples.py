"""The documentation's examples, word for word, as programs and as cells of a notebook.

Filled in are the project's path, the content of the configuration and the scheduler, because there is none here; put
before them are the imports that the documentation leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edbjobs_server.solver.demo import example_project
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from support.facade import environment, program

SYNCHRONOUS = """
from pyedb.workflows.job_manager.backend.job_manager_handler import JobManagerHandler

handler = JobManagerHandler()
handler.start_service()

cfg = handler.create_simulation_config(
    "/path/to/antenna.aedt", scheduler_type="slurm", cpu_cores=16
)
job_id = asyncio.run(handler.submit_job(cfg))
print("Submitted", job_id)

# Wait until finished
while handler.manager.jobs[job_id].status not in {"completed", "failed"}:
    time.sleep(1)

handler.close()
"""
ASYNCHRONOUS = """
from pyedb.workflows.job_manager.backend.service import JobManager, ResourceLimits

manager = JobManager(ResourceLimits(max_concurrent_jobs=4))
config = HFSSSimulationConfig.from_dict({...})
job_id = await manager.submit_job(config, priority=5)
await manager.wait_until_all_done()
"""
# The last line: the documentation's port, 8080, may be in use where tests run.
LEFT_OUT = """
import asyncio, time
from pyedb.workflows.job_manager.backend.job_manager_handler import JobManagerHandler
from pyedb.workflows.job_manager.backend.job_submission import HFSSSimulationConfig
JobManagerHandler.__init__.__defaults__ = (None, None, "localhost", 0)
"""
DEADLINE = 60.0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return example_project(tmp_path)


def synchronous(project: Path, scheduler: str) -> str:
    return SYNCHRONOUS.replace("/path/to/antenna.aedt", str(project)).replace("slurm", scheduler)


def asynchronous(project: Path) -> str:
    return ASYNCHRONOUS.replace("{...}", f'{{"project_path": {str(project)!r}}}')


def test_the_synchronous_example(state: Path, project: Path) -> None:
    lines = LEFT_OUT + synchronous(project, "none") + "print(handler.started)"
    done = program(state, "-c", lines, ANS_EDBJOBS_DEMO="seconds=0.2")
    assert done.returncode == 0, done.stderr
    assert "asks for 16 cores" in done.stderr
    first, closed, started = done.stdout.splitlines()
    assert first.startswith("Submitted job-")
    assert "0 solves go on running, 0 jobs stay queued and held" in closed
    assert started == "False"


def test_the_synchronous_example_where_there_is_no_slurm(state: Path, project: Path) -> None:
    """It ends at once with an error: the job is not run elsewhere instead."""
    done = program(state, "-c", LEFT_OUT + synchronous(project, "slurm"))
    assert done.returncode == 1
    assert "cannot hand jobs to slurm" in done.stderr.splitlines()[-1]


def test_the_asynchronous_example(state: Path, project: Path) -> None:
    body = "".join(f"    {line}\n" for line in asynchronous(project).splitlines())
    show = "    print(manager.jobs[job_id].status, manager.jobs[job_id].priority)\n"
    lines = f"{LEFT_OUT}\nasync def main():\n{body}{show}\nasyncio.run(main())"
    done = program(state, "-c", lines, ANS_EDBJOBS_DEMO="seconds=0.2")
    assert (done.returncode, done.stdout) == (0, "completed 5\n"), done.stderr


# In a notebook ------------------------------------------------------------------------------------------------

Cell = Callable[[str], str]


@pytest.fixture
def cell(state: Path) -> Iterator[Cell]:
    """Run a cell in a kernel of its own; return its output."""
    manager, client = start_new_kernel(
        kernel_name="python3", env=environment(state, ANS_EDBJOBS_DEMO="seconds=0.2"), cwd=str(state)
    )
    try:
        yield lambda code: run_cell(client, code)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def run_cell(client: BlockingKernelClient, code: str) -> str:
    printed: list[str] = []

    def take(message: dict[str, object]) -> None:
        content = message["content"]
        assert isinstance(content, dict)
        printed.extend(content["traceback"] if message["msg_type"] == "error" else [content.get("text", "")])

    reply = client.execute_interactive(code, timeout=DEADLINE, output_hook=take)
    assert reply["content"]["status"] == "ok", "".join(printed)
    return "".join(printed)


def test_the_examples_in_a_notebook(cell: Cell, project: Path) -> None:
    """A notebook has a running loop, in which the language allows no asyncio.run: there the id is awaited."""
    cell(LEFT_OUT)
    text = synchronous(project, "none")
    assert text.count("asyncio.run(handler.submit_job(cfg))") == 1
    printed = cell(text.replace("asyncio.run(handler.submit_job(cfg))", "await handler.submit_job(cfg)"))
    assert "Submitted job-" in printed
    assert "0 solves go on running" in printed
    cell(asynchronous(project))
    assert cell("print(manager.jobs[job_id].status)") == "completed\n"
    cell("handler.start_service()\nplain = handler.submit_job(cfg)")
    assert "True" in cell("print(plain in handler.manager.jobs)\nhandler.wait_until_all_done()\nhandler.close()")
