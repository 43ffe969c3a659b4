"""A PBS that answers as OpenPBS 23.06 did when it was recorded, and runs the scripts it is given.

Troubles, by name; a value is ``all`` unless said otherwise:

``down`` commands find no server · ``hang`` commands never answer (value: their names) · ``slow`` (seconds) ·
``history_off`` · ``invalid_json`` as the release prints it · ``half`` answers of qstat stop in the middle ·
``duplicate`` each job is told twice (value ``different``: the second time with another state) ·
``submit_hangs`` the job is taken, and qsub never says so · ``refuse`` qsub refuses (value: its words) ·
``hold`` jobs are held while it lasts · ``never`` no job can run · ``stopped`` the queue is stopped ·
``memory`` running jobs are ended for their memory · ``lost`` running jobs vanish with their node ·
``requeue`` (number) a running job is put back into the queue · ``deaf`` only ``qdel -W force`` ends running jobs ·
``ending`` (seconds) ended scripts stay in state E · ``purge`` ended jobs are forgotten.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.fake_batch import FakeBatch, Job, Refusal, Server, Store, delay, user

SERVER = "pbshost"
QUEUES: dict[str, dict[str, Any]] = {
    "workq": {},
    "small": {"resources_max": {"ncpus": 2, "walltime": "00:10:00"}},
    "stopped": {"started": "False"},
    "disabled": {"enabled": "False"},
}
ABOUT = {SERVER: {"server_state": "Active", "server_host": SERVER, "default_queue": "workq"}}
LETTERS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:XzZ"
RESOURCES = {"select", "place", "walltime", "ncpus", "mem", "ngpus", "mpiprocs", "host", "hfss"}


class FakePbs(FakeBatch):
    """See the module."""

    module = "fake_pbs"
    commands = ("qsub", "qstat", "qdel", "qselect", "pbsnodes")


def main(command: str, folder: str, argv: Sequence[str]) -> int:
    store = Store(Path(folder))
    if command == "serve":
        Server(store, sys.modules[__name__]).run()
        return 0
    store.note(command, argv)
    delay(store, command)
    try:
        return int(COMMANDS[command](store, argv))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.code


# Submitting ----------------------------------------------------------------------------------------------


def qsub(store: Store, argv: Sequence[str]) -> int:
    down(store, 162, f"qsub: cannot connect to server {SERVER} (errno=15010)")
    options, rest = getopt.getopt(list(argv), LETTERS)
    path = Path(rest[0])
    if not path.is_file():
        raise Refusal(1, "qsub: script file:: No such file or directory")
    script = path.read_text()
    written = [word for line in directives(script) for word in shlex.split(line)]
    chosen: dict[str, Any] = {"l": {}}
    for name, value in getopt.getopt(written, LETTERS)[0] + options:
        if name == "-l":
            chosen["l"].update(item.partition("=")[::2] for item in value.split(","))
        else:
            chosen[name[1:]] = value
    job = taken(store, chosen)
    number = store.add(job, script)
    if store.trouble("submit_hangs"):
        time.sleep(3600)
    print(f"{number}.{SERVER}")
    return 0


def directives(script: str) -> list[str]:
    found = []
    for line in script.splitlines():
        if line.startswith("#PBS "):
            found.append(line[5:])
        elif line.strip() and not line.startswith("#"):
            break
    return found


def taken(store: Store, chosen: Mapping[str, Any]) -> Job:
    """Check what is asked for, in the order and with the words that were recorded."""
    name, output = chosen.get("N", "STDIN"), chosen.get("o", "")
    if not re.fullmatch(r"[A-Za-z0-9][!-~]{0,229}", name):
        raise Refusal(2, "qsub: illegal -N value\nusage: qsub [-a date_time] [-A account_string]")
    if not re.fullmatch(r"[!-~]*", output):
        raise Refusal(2, "qsub: illegal -o value\nusage: qsub [-a date_time] [-A account_string]")
    if words := store.trouble("refuse"):
        raise Refusal(1, f"qsub: {words}")
    asked = chosen["l"]
    chunks = [chunk(text) for text in asked.get("select", "1:ncpus=1").split("+")]
    unknown = [word for word in [*asked, *(key for item in chunks for key in item)] if word not in {*RESOURCES, "n"}]
    if unknown:
        raise Refusal(187, f"qsub: Unknown resource: {unknown[0]}")
    queue = chosen.get("q", "workq")
    if queue not in QUEUES:
        raise Refusal(170, "qsub: Unknown queue")
    if QUEUES[queue].get("enabled") == "False":
        raise Refusal(173, "qsub: Queue is not enabled")
    cores = sum(int(item["n"]) * int(item.get("ncpus", 1)) for item in chunks)
    limit = seconds(asked["walltime"]) if "walltime" in asked else 0
    most = QUEUES[queue].get("resources_max")
    if most and (cores > most["ncpus"] or limit > seconds(most["walltime"])):
        raise Refusal(188, "qsub: Job violates queue and/or server resource limits")
    return {
        "name": name,
        "owner": user(),
        "queue": queue,
        "stopped": QUEUES[queue].get("started") == "False",
        "cores": cores,
        "nodes": sum(int(item["n"]) for item in chunks),
        "tasks": int(chunks[0].get("mpiprocs", 1)),
        "asked": asked,
        "limit": limit,
        "hold": "h" in chosen,
        "cwd": os.getcwd(),
        "output": str(Path.cwd() / (output or f"{name}.o")),
        "chosen": chosen,
    }


def chunk(text: str) -> dict[str, str]:
    first, *rest = text.split(":")
    if not first.isdigit():
        first, rest = "1", [first, *rest]
    if any("=" not in item for item in rest):
        raise Refusal(166, "qsub: Illegal attribute or resource value Resource_List.select")
    return {"n": first, **dict(item.split("=", 1) for item in rest)}


def seconds(text: str) -> int:
    total = 0
    for part in text.split(":"):
        if not part.isdigit():
            raise Refusal(166, "qsub: Illegal attribute or resource value Resource_List.walltime")
        total = total * 60 + int(part)
    return total


# Running -------------------------------------------------------------------------------------------------


def begin(store: Store, job: Job) -> tuple[list[str], dict[str, str], str, str]:
    """Argv, environment, folder and output: a job gets none of the environment it was submitted in."""
    nodefile = store.state / "scripts" / f"{job['number']}.nodes"
    nodefile.write_text("".join(f"{host}\n" * int(job["tasks"]) for host, _ in job["hosts"]))
    home = str(store.root / "home")
    env = {
        "HOME": home,
        "LOGNAME": user(),
        "USER": user(),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/bash",
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBID": f"{job['number']}.{SERVER}",
        "PBS_JOBNAME": job["name"],
        "PBS_NODEFILE": str(nodefile),
        "PBS_O_HOME": os.environ.get("HOME", "/"),
        "PBS_O_WORKDIR": job["cwd"],
        "PBS_O_HOST": SERVER,
        "PBS_QUEUE": job["queue"],
        "NCPUS": str(job["hosts"][0][1]),
    }
    return ["/bin/bash", str(store.state / "scripts" / job["number"])], env, home, job["output"]


def finish(store: Store, job: Job) -> None:
    """Write what MoM does about limits."""
    line = {
        "limit": f"=>> PBS: job killed: walltime {int(job['end'] - job.get('start', 0))} exceeded limit {job['limit']}",
        "memory": "=>> PBS: job killed: mem 2097152kb exceeded limit 1048576kb",
    }.get(job.get("why", ""))
    if line is not None and Path(job["output"]).parent.is_dir():
        with open(job["output"], "a") as file:
            file.write(f"{line}\n")


def ended(job: Job) -> dict[str, Any]:
    """Substate, exit status and comment of a job that is over."""
    run = f"Job run at {time.strftime('%a %b %d at %H:%M', time.localtime(job.get('start', 0)))} on ({vnodes(job)})"
    if "start" not in job:
        return {"substate": 91, "comment": "Not Running: Not enough free nodes available and terminated"}
    why = job.get("why")
    if why == "deleted":
        code = 265 if job["delete"] == "force" else 271
        return {"substate": 91, "Exit_status": code, "comment": f"{run} and terminated by {user()}@{SERVER}"}
    if why == "limit":
        return {"substate": 93, "Exit_status": -29, "comment": f"{run} and exceeded resource walltime"}
    if why == "memory":
        return {"substate": 93, "Exit_status": -27, "comment": f"{run} and exceeded resource mem"}
    if why == "lost":
        return {"substate": 93, "Exit_status": -20, "comment": f"{run} and failed"}
    code = job["code"] if job["code"] >= 0 else 128 - job["code"]  # a login shell stands in between
    word = "failed" if code else "finished"
    return {"substate": 93 if code else 92, "Exit_status": code, "comment": f"{run} and {word}"}


def vnodes(job: Job) -> str:
    return "+".join(f"{host}:ncpus={cores}" for host, cores in job.get("hosts", []))


# Asking --------------------------------------------------------------------------------------------------


def attributes(job: Job) -> dict[str, Any]:
    letters = {"held": ("H", 20), "queued": ("Q", 10), "running": ("R", 42), "ending": ("E", 51), "ended": ("F", 92)}
    letter, substate = letters[job["state"]]
    found: dict[str, Any] = {
        "Job_Name": job["name"],
        "Job_Owner": f"{job['owner']}@{SERVER}",
        "job_state": letter,
        "queue": job["queue"],
        "server": SERVER,
        "ctime": time.ctime(job["submit"]),
        "Hold_Types": "u" if letter == "H" else "n",
        "Output_Path": f"{SERVER}:{job['output']}",
        "qtime": time.ctime(job["submit"]),
        "Rerunable": "False",
        "Resource_List": {"ncpus": job["cores"], "nodect": job["nodes"], **job["asked"]},
        "substate": substate,
        "Variable_List": {"PBS_O_HOME": "/home/me", "PBS_O_WORKDIR": job["cwd"], "A": "1"},
    }
    comments = {
        "never": f"Can Never Run: Insufficient amount of resource: ncpus (R: {job['cores']} A: 4 T: 4)",
        "stopped": "Not Running: Queue not started.",
        "full": "Not Running: Not enough free nodes available",
    }
    if job.get("reason") and letter == "Q":
        found["comment"] = comments[job["reason"]]
    if "start" in job:
        found["exec_host"] = "+".join(f"{host}/0*{cores}" for host, cores in job["hosts"])
        found["stime"] = time.ctime(job["start"])
        found["comment"] = f"Job run at {time.strftime('%a %b %d at %H:%M')} on ({vnodes(job)})"
    if letter in "RE" and job.get("why") == "deleted":
        found["comment"] += f" and terminated by {user()}@{SERVER}"
    if letter == "F":
        found.update(ended(job), obittime=time.ctime(job["end"]))
    return {**found, "Submit_arguments": f"-N {job['name']}", "project": "_pbs_project_default", "Submit_Host": SERVER}


def qstat(store: Store, argv: Sequence[str]) -> int:
    flags, ids = getopt.getopt(list(argv), "xfF:BQt")
    names = {name for name, _ in flags}
    if names & {"-B", "-Q"}:
        down(store, 255, f"qstat: cannot connect to server {SERVER} (errno=15010)", document({}))
        print(document({"Server": ABOUT} if "-B" in names else {"Queue": queues(store)}))
        return 0
    as_json = ("-F", "json") in flags
    down(store, 255, f"qstat: cannot connect to server {SERVER} (errno=15010)", document({}) if as_json else "")
    with store.jobs() as jobs:
        live = {f"{number}.{SERVER}": job for number, job in jobs.items()}
    code, chosen, words = select(store, live, ids, history="-x" in names)
    told = {ident: attributes(live[ident]) for ident in chosen}
    text = json_form(store, told) if as_json else "".join(plain(ident, item) for ident, item in told.items())
    if store.trouble("half"):
        text = text[: len(text) // 2]
    sys.stdout.write(text)
    sys.stderr.write("".join(f"qstat: {line}\n" for line in words))
    return code


def select(
    store: Store, live: Mapping[str, Job], ids: Sequence[str], *, history: bool
) -> tuple[int, list[str], list[str]]:
    """Ids to be told, with exit code and words about the others."""
    if not ids:
        return 0, [ident for ident, job in live.items() if history or job["state"] != "ended"], []
    code, found, words = 0, [], []
    for ident in ids:
        off = bool(store.trouble("history_off"))
        over = ident in live and live[ident]["state"] == "ended"
        if history and off:
            words.append(f"PBS is not configured to maintain job history {ident}")
        elif ident not in live or (over and off):
            code = 153
            words.append(f"Unknown Job Id {ident}")
        elif over and not history:
            code = 35
            words.append(f"{ident} Job has finished, use -x or -H to obtain historical job information")
        else:
            found.append(ident)
    return code, found, words


def document(body: Mapping[str, Any]) -> str:
    whole = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": SERVER, **body}
    return json.dumps(whole, indent="\t", separators=(",", ":\t"))


def json_form(store: Store, told: Mapping[str, Any]) -> str:
    text = document({"Jobs": told} if told else {})
    if told and store.trouble("invalid_json"):
        text = text.replace('"A":\t"1"', '"A":\t+5')
    if told and (kind := store.trouble("duplicate")):
        again = {ident: {**item, "job_state": "Q"} if kind == "different" else item for ident, item in told.items()}
        inner = json.dumps(again, indent="\t").strip().strip("{}")
        text = text.replace('"Jobs":\t{', f'"Jobs":\t{{{inner.rstrip()},', 1)
    return text + "\n"


def plain(ident: str, item: Mapping[str, Any]) -> str:
    lines = [f"Job Id: {ident}"]
    for name, value in item.items():
        if name == "Variable_List":
            lines.append(f"    {name} = " + ",\n\t".join(f"{key}={word}" for key, word in value.items()))
        elif isinstance(value, dict):
            lines += [f"    {name}.{key} = {word}" for key, word in value.items()]
        else:
            lines.append(f"    {name} = {value}")
    return "\n".join(lines) + "\n\n"


def queues(store: Store) -> dict[str, Any]:
    found = {
        name: {"queue_type": "Execution", "total_jobs": 0, "enabled": "True", "started": "True", **more}
        for name, more in QUEUES.items()
    }
    if store.trouble("stopped"):
        found["workq"]["started"] = "False"
    return found


def pbsnodes(store: Store, argv: Sequence[str]) -> int:
    down(store, 1, f"pbsnodes: cannot connect to server {SERVER}, error=15010")
    with store.jobs() as jobs:
        used = [pair for job in jobs.values() if job["state"] in ("running", "ending") for pair in job["hosts"]]
    found = {}
    for host, cores in store.config["nodes"].items():
        busy = sum(count for name, count in used if name == host)
        found[host] = {
            "Mom": host,
            "state": "job-busy" if busy >= cores else "free",
            "resources_available": {"arch": "linux", "host": host, "mem": "24684084kb", "ncpus": cores, "vnode": host},
            "resources_assigned": {"ncpus": busy} if busy else {},
        }
    print(document({"nodes": found}))
    return 0


def qselect(store: Store, argv: Sequence[str]) -> int:
    down(store, 162, f"qselect: cannot connect to server {SERVER} (errno=15010)")
    flags = dict(getopt.getopt(list(argv), "xN:u:")[0])
    over = "-x" in flags and not store.trouble("history_off")
    with store.jobs() as jobs:
        for number, job in jobs.items():
            if job["name"] == flags.get("-N", job["name"]) and (over or job["state"] != "ended"):
                print(f"{number}.{SERVER}")
    return 0


def qdel(store: Store, argv: Sequence[str]) -> int:
    down(store, 162, f"Couldn't connect to cluster: {SERVER}")
    flags, ids = getopt.getopt(list(argv), "W:x")
    code = 0
    with store.jobs() as jobs:
        for ident in ids:
            job = jobs.get(ident.partition(".")[0])
            if job is None or (job["state"] == "ended" and store.trouble("history_off")):
                code = 153
                print(f"qdel: Unknown Job Id {ident}", file=sys.stderr)
            elif job["state"] == "ended":
                code = 35
                print(f"qdel: Job has finished {ident}", file=sys.stderr)
            else:
                job["delete"] = dict(flags).get("-W", "term")
                if job["delete"] == "force" and job.get("why") == "deleted":
                    job["term"] = 0
    return code


def down(store: Store, code: int, words: str, answer: str = "") -> None:
    if store.trouble("down"):
        if answer:
            print(answer)
        raise Refusal(code, f"Connection refused\n{words}")


COMMANDS = {"qsub": qsub, "qstat": qstat, "qselect": qselect, "qdel": qdel, "pbsnodes": pbsnodes}
