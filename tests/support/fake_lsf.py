"""An LSF that answers as OpenLava 2.2 did when it was recorded, or as IBM's 10.1 in public examples; it runs scripts.

Troubles, by name; a value is ``all`` unless said otherwise:

``old`` no ``-o``, ``-json`` and reasons, as OpenLava · ``minute`` (seconds) how long a minute of -W is · ``down`` the
batch daemon does not respond: commands wait · ``hang`` commands never answer (value: their names) · ``slow`` (seconds)
· ``banner`` clients say that they cannot connect before they answer · ``half`` answers of bjobs stop in the middle ·
``duplicate`` each job is told twice (value ``different``: the second time as ended) · ``submit_hangs`` the job is
taken, and bsub never says so · ``refuse`` bsub refuses (value: its words) · ``hold`` jobs are held while it lasts ·
``never`` jobs wait for what cannot be · ``stopped`` queues are inactive · ``memory`` running jobs are ended for their
memory · ``lost`` running jobs vanish with their host · ``requeue`` (number) a running job is put back into the queue ·
``deaf`` only ``bkill -r`` ends running jobs · ``unknown`` hosts do not answer · ``ending`` (seconds) · ``clean`` bjobs
forgets ended jobs, bhist does not · ``purge`` ended jobs are forgotten.
"""

from __future__ import annotations

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

QUEUES: dict[str, dict[str, Any]] = {
    "small": {"minutes": 10, "slots": 2, "words": "small jobs"},
    "normal": {"words": "For normal jobs.  This is the default queue."},
}
WITH_VALUE = {"J", "Jd", "n", "q", "o", "e", "W", "R", "M", "P", "U", "m", "sp", "u", "b", "gpu", "app"}
ALONE = {"rn", "x", "N", "H"}
ENDS = {
    "deleted": (130, "TERM_OWNER: job killed by owner"),
    "limit": (140, "TERM_RUNLIMIT: job killed after reaching LSF run time limit"),
    "memory": (137, "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit"),
    "lost": (None, "TERM_REMOVE_HUNG_JOB: job removed from the LSF system"),
}
NOT_IN_OLD = {"Jd", "rn", "U", "gpu", "app"}


class FakeLsf(FakeBatch):
    """See the module."""

    module = "fake_lsf"
    commands = ("bsub", "bjobs", "bkill", "bhist", "bqueues", "bhosts", "lshosts", "lsid")
    first = 101


def main(command: str, folder: str, argv: Sequence[str]) -> int:
    store = Store(Path(folder))
    if command == "serve":
        Server(store, sys.modules[__name__]).run()
        return 0
    store.note(command, argv)
    if command not in ("lsid", "lshosts") and store.trouble("down"):
        print("batch system daemon not responding ... still trying", file=sys.stderr, flush=True)
        time.sleep(3600)
    delay(store, command)
    if store.trouble("banner"):
        print("Cannot connect to LSF. Please wait ...\nCannot connect to LSF. Please wait ...")
    try:
        return int(COMMANDS[command](store, list(argv)))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.code


def bsub(store: Store, argv: list[str]) -> int:
    script = sys.stdin.read()
    if not script.strip():
        raise Refusal(255, "No command is specified. Job not submitted.")
    chosen = options(
        store, [word for line in script.splitlines() if line[:6] == "#BSUB " for word in shlex.split(line[6:])]
    )
    chosen.update(options(store, argv))
    number = store.add(taken(store, chosen), script)
    if store.trouble("submit_hangs"):
        time.sleep(3600)
    kind = "queue" if "q" in chosen else "default queue"
    print(f"Job <{number}> is submitted to {kind} <{chosen.get('q', 'normal')}>.")
    return 0


def options(store: Store, words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word[1:]
        if not word.startswith("-") or name not in WITH_VALUE | ALONE or (store.trouble("old") and name in NOT_IN_OLD):
            raise Refusal(255, f"bsub: illegal option -- {name}\nUsage: bsub [-h] [-V] [-x] [-H] [-r] [-N] [-B]")
        found[name] = rest.pop(0) if name in WITH_VALUE else ""
    return found


def taken(store: Store, chosen: Mapping[str, str]) -> Job:
    if words := store.trouble("refuse"):
        raise Refusal(255, f"{words}. Job not submitted.")
    queue = chosen.get("q", "normal")
    if queue not in QUEUES:
        raise Refusal(255, f"{queue}: No such queue. Job not submitted.")
    cores = int(chosen.get("n", "1"))
    if cores > min(QUEUES[queue].get("slots", 1 << 30), sum(store.config["nodes"].values())):
        raise Refusal(255, "Too many processors requested. Job not submitted.")
    hours, _, minutes = chosen.get("W", "0").rpartition(":")
    limit = int(hours or 0) * 60 + int(minutes)
    if limit > QUEUES[queue].get("minutes", 1 << 30):
        raise Refusal(255, "RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.")
    tile = re.search(r"span\[ptile=(\d+)\]", chosen.get("R", ""))
    return {
        "name": chosen.get("J", "script"),
        "owner": user(),
        "queue": queue,
        "cores": cores,
        "nodes": max(1, cores // int(tile[1])) if tile is not None else 1,
        "minutes": limit,
        "limit": limit * float(store.trouble("minute") or 60),
        "hold": "H" in chosen,
        "cwd": os.getcwd(),
        "output": str(Path.cwd() / chosen["o"]) if "o" in chosen else os.devnull,
        "env": dict(os.environ),
        "chosen": dict(chosen),
    }


# Running -------------------------------------------------------------------------------------------------


def begin(store: Store, job: Job) -> tuple[list[str], dict[str, str], str, str]:
    """Argv, environment, folder and output: a job gets the environment and the folder it was submitted in."""
    env = {
        **job["env"],
        "LSB_JOBID": job["number"],
        "LSB_JOBNAME": job["name"],
        "LSB_QUEUE": job["queue"],
        "LSB_MCPU_HOSTS": " ".join(f"{host} {cores}" for host, cores in job["hosts"]),
        "LSB_HOSTS": " ".join(host for host, cores in job["hosts"] for _ in range(cores)),
        "LSB_DJOB_NUMPROC": str(job["cores"]),
        "LS_SUBCWD": job["cwd"],
    }
    output = store.state / "scripts" / f"{job['number']}.out"  # the report comes first
    return ["/bin/bash", str(store.state / "scripts" / job["number"])], env, job["cwd"], str(output)


def finish(store: Store, job: Job) -> None:
    """Write the report, if it can be written: a job whose output cannot is done all the same."""
    code, term = left(job)
    if store.trouble("old"):
        term = ""
    end = f"Exited with exit code {code}." if code else "Successfully completed."
    printed = (store.state / "scripts" / f"{job['number']}.out").read_text(errors="replace")
    report = (
        f"Sender: LSF System <lsfadmin@host>\nSubject: Job {job['number']}: <{job['name']}> "
        f"{'Exited' if code else 'Done'}\n\nYour job looked like:\n\n{'-' * 60}\n# LSBATCH: User input\n"
        f"(script)\n{'-' * 60}\n\n{term}{'.' if term else ''}\n{end}\n\n"
        f"The output (if any) follows:\n\n{printed}"
    )
    try:
        Path(job["output"]).write_text(report)
    except OSError:
        return


def left(job: Job) -> tuple[int | None, str]:
    """Exit code and reason of a job that is over."""
    if "start" not in job:
        return None, "TERM_OWNER: job killed by owner"
    if job.get("why") in ENDS:
        return ENDS[job["why"]]
    return job["code"] if job["code"] >= 0 else 128 - job["code"], ""


# Asking --------------------------------------------------------------------------------------------------


def stat(store: Store, job: Job) -> str:
    if job["state"] == "ended":
        return "DONE" if left(job)[0] == 0 else "EXIT"
    if job["state"] in ("running", "ending") and store.trouble("unknown"):
        return "UNKWN"
    return {"held": "PSUSP", "queued": "PEND", "running": "RUN", "ending": "RUN"}[job["state"]]


def why_pending(job: Job) -> str:
    words = {
        "never": "Dependency condition invalid or never satisfied;",
        "stopped": "The queue is inactivated by the administrator;",
        "full": "Job slot limit reached: 1 host;",
    }
    return words.get(job.get("reason", ""), "New job is waiting for scheduling;")


def record(store: Store, job: Job) -> dict[str, str]:
    state = stat(store, job)
    code, term = left(job) if state == "EXIT" else (None, "")
    return {
        "JOBID": job["number"],
        "JOB_NAME": job["name"],
        "STAT": state,
        "USER": job["owner"],
        "QUEUE": job["queue"],
        "SLOTS": str(job["cores"]),
        "EXEC_HOST": ":".join(f"{cores}*{host}" for host, cores in job.get("hosts", [])),
        "SUBMIT_TIME": date(job["submit"]),
        "START_TIME": date(job.get("start")),
        "FINISH_TIME": f"{date(job['end'])} L" if "end" in job else "",
        "EXIT_CODE": "" if code is None or term.startswith("TERM_OWNER") else str(code),
        "EXIT_REASON": term,
        "PEND_REASON": why_pending(job) if state in ("PEND", "PSUSP") else "",
    }


def date(when: float | None, form: str = "%b %e %H:%M") -> str:
    return "" if when is None else time.strftime(form, time.localtime(when))


def bjobs(store: Store, argv: list[str]) -> int:
    old = bool(store.trouble("old"))
    flags: dict[str, str] = {}
    ids = []
    while argv:
        word = argv.pop(0)
        if word in ("-o", "-json") and old:
            raise Refusal(255, f"bjobs: invalid option -- '{word[1]}'\nUsage: bjobs [-h] [-V] [-w |-l] [-a] [-d] [-p]")
        if word in ("-a", "-w", "-l", "-p", "-json"):
            flags[word] = ""
        elif word in ("-J", "-u", "-o"):
            flags[word] = argv.pop(0)
        else:
            ids.append(word)
    found, missing = chosen_jobs(store, flags, ids)
    if missing:
        sys.stderr.write("".join(f"Job <{name}> is not found\n" for name in missing))
    elif not found and "-json" not in flags:
        print("No unfinished job found", file=sys.stderr)
    text = told(store, flags, found)
    sys.stdout.write(text[: len(text) // 2] if store.trouble("half") else text)
    return 0 if found else 255


def chosen_jobs(store: Store, flags: Mapping[str, str], ids: Sequence[str]) -> tuple[list[Job], list[str]]:
    with store.jobs() as jobs:
        known = {number: job for number, job in jobs.items() if job["state"] != "ended" or not store.trouble("clean")}
    if ids:
        return [known[name] for name in ids if name in known], [name for name in ids if name not in known]
    name = flags.get("-J")
    found = [
        job for job in known.values() if name in (None, job["name"]) and ("-a" in flags or job["state"] != "ended")
    ]
    found = [job for job in found if "-p" not in flags or stat(store, job) == "PEND"]
    return found, [] if found or name is None else [name]


def told(store: Store, flags: Mapping[str, str], found: Sequence[Job]) -> str:
    if store.trouble("duplicate"):
        again = "ended" if store.trouble("duplicate") == "different" else ""
        found = [*found, *({**job, "state": again or job["state"], "code": 0} for job in found)]
    if "-json" in flags:
        wanted = flags["-o"].upper().split()
        records = [{name: record(store, job)[name] for name in wanted} for job in found]
        body = {"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}
        return json.dumps(body, indent=2).replace("/", "\\/") + "\n"
    if "-l" in flags:
        return "".join(long_form(store, job) for job in found)
    if not found:
        return ""
    return "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n" + "".join(
        f"{job['number']:<7} {job['owner']:<7} {stat(store, job):<5} {job['queue']:<10} {'host':<11} "
        f"{exec_host(job):<11} {job['name']:<10} {date(job['submit'])}\n"
        + (f" {why_pending(job)}\n" if "-p" in flags else "")
        for job in found
    )


def exec_host(job: Job) -> str:
    return ":".join(host for host, cores in job.get("hosts", []) for _ in range(cores)) or "   -"


def fold(line: str) -> str:
    return ("\n" + " " * 21).join([line[:79], *(line[at : at + 58] for at in range(79, len(line), 58))])


def events(store: Store, job: Job, *, history: bool) -> list[str]:
    def stamp(when: float) -> str:
        return date(when, "%a %b %e %H:%M:%S")

    found = [f"{stamp(job['submit'])}: Submitted from host <host>, CWD <{job['cwd']}>;"]
    if "start" in job:
        places = " ".join(f"<{host}>" for host, cores in job["hosts"] for _ in range(cores))
        many = f"{job['cores']} Hosts/Processors " if job["cores"] > 1 else ""
        verb = "Dispatched to" if history else "Started on"
        found.append(f"{stamp(job['start'])}: {verb} {many}{places}, Execution Home </home/me>;")
    if job["state"] != "ended":
        return found
    code, term = left(job)
    end = stamp(job["end"])
    if history and job.get("why", "") == "deleted":
        found.append(f"{end}: Signal <KILL> requested by user or administrator <{job['owner']}>;")
    if code == 0:
        found.append(f"{end}: Done successfully. The CPU time used is 0.0 seconds.")
    else:
        found.append(f"{end}: Exited" + (f" with exit code {code}. The CPU time used is 0.0 seconds." if code else ""))
        if term and not store.trouble("old"):
            found.append(f"{end}: Completed <exit>; {term}.")
    return found


def long_form(store: Store, job: Job, *, history: bool = False) -> str:
    state = "" if history else f"Status <{stat(store, job)}>, Queue <{job['queue']}>, "
    head = (
        f"Job <{job['number']}>, Job Name <{job['name']}>, User <{job['owner']}>, Project <default>, {state}"
        "Command <#!/bin/bash;#BSUB -n 1;exec true>"
    )
    limit = f"\n RUNLIMIT                \n {job['minutes']}.0 min of host\n" if job["minutes"] else ""
    lines = "\n".join(fold(line) for line in events(store, job, history=history))
    waits = f"\n PENDING REASONS:\n {why_pending(job)}\n" if stat(store, job) in ("PEND", "PSUSP") else ""
    tail = "Summary of time in seconds spent in various states by  now" if history else " SCHEDULING PARAMETERS:"
    return f"\n{fold(head)}\n{limit}{lines}\n{'' if history else waits}\n{tail}\n           r15s   r1m  r15m\n\n"


def bhist(store: Store, argv: list[str]) -> int:
    name, ids = None, []
    while argv:
        word = argv.pop(0)
        if word == "-J":
            name = argv.pop(0)
        elif word == "-n":
            argv.pop(0)
        elif word not in ("-l", "-a"):
            ids.append(word)
    with store.jobs() as jobs:
        found = [job for number, job in jobs.items() if (number in ids if ids else job["name"] == name)]
    sys.stdout.write("".join(long_form(store, job, history=True) for job in found))
    if not found:
        raise Refusal(255, "No matching job found")
    return 0


def bkill(store: Store, argv: list[str]) -> int:
    code = 0
    ids = [word for word in argv if word != "-r"]
    with store.jobs() as jobs:
        for name in ids:
            job = jobs.get(name)
            if job is None:
                code = 255
                print(f"Job <{name}>: No matching job found", file=sys.stderr)
            elif job["state"] == "ended":
                code = 255
                print(f"Job <{name}>: Job has already finished", file=sys.stderr)
            else:
                job["delete"] = "force" if "-r" in argv else "term"
                job["term"] = 0 if job.get("why") == "deleted" and "-r" in argv else job.get("term", 0)
                print(f"Job <{name}> is being terminated")
    return code


def bqueues(store: Store, argv: list[str]) -> int:
    status = "Open:Inact" if store.trouble("stopped") else "Open:Active"
    for name, queue in QUEUES.items():
        limit = f"\n RUNLIMIT                \n {queue['minutes']}.0 min of host\n" if "minutes" in queue else ""
        print(
            f"\nQUEUE: {name}\n  -- {queue['words']}\n\nPARAMETERS/STATISTICS\n"
            "PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV \n"
            f" 30    0  {status:<15}   -    -    -    -     0     0     0     0     0    0\n{limit}\n"
            f"USERS:  all users\nHOSTS:  all hosts used by the LSF Batch system\n\n{'-' * 79}"
        )
    return 0


def bhosts(store: Store, argv: list[str]) -> int:
    with store.jobs() as jobs:
        used = [pair for job in jobs.values() if job["state"] in ("running", "ending") for pair in job["hosts"]]
    print("HOST_NAME          STATUS          JL/U    MAX  NJOBS    RUN  SSUSP  USUSP    RSV ")
    for host, cores in store.config["nodes"].items():
        busy = sum(count for name, count in used if name == host)
        print(f"{host:<18} {'closed_Full' if busy >= cores else 'ok':<15} - {cores} {busy} {busy} 0 0 0")
    return 0


def lshosts(store: Store, argv: list[str]) -> int:
    print("HOST_NAME                       type       model  cpuf ncpus maxmem maxswp server RESOURCES")
    for host, cores in store.config["nodes"].items():
        print(f"{host} linux IntelI5 100.0 {cores} 24105M - Yes (cs)")
    return 0


def lsid(store: Store, argv: list[str]) -> int:
    print("openlava project 2.2, Nov 23 2026" if store.trouble("old") else "IBM Spectrum LSF Standard 10.1.0.13")
    return 0


COMMANDS = {
    "bsub": bsub, "bjobs": bjobs, "bkill": bkill, "bhist": bhist, "bqueues": bqueues, "bhosts": bhosts,
    "lshosts": lshosts, "lsid": lsid,
}  # fmt: skip
