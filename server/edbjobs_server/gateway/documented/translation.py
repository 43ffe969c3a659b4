"""The two-way translation between the documented configuration and the contract's.

The documented one has a value for every field, so a documented default may not have been set by anybody. Where a
documented default has another meaning than "not set" of the contract, this module decides what is passed on; the
reverse gives the documented default for what is not set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from edbjobs._enums import DesignMode, ExistingResults, SchedulerPriority
from edbjobs.config import JobConfig, LayoutOptions, Machine, RetryOptions, field_errors
from edbjobs.config import SchedulerOptions as ContractOptions
from pydantic import ValidationError

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented import scheduler_texts as texts
from edbjobs_server.gateway.documented.config import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    RetryPolicy,
    SchedulerOptions,
    SchedulerType,
)
from edbjobs_server.gateway.documented.parts import DOCUMENTED_MAX_CORES

DEFAULT_SOLVER: str = HFSSSimulationConfig.model_fields["solver"].default
MODES = {DesignMode.NOMINAL: "Nominal", DesignMode.OPTIMETRICS: "Optimetrics"}
PRIORITIES = {
    SchedulerPriority.LOWEST: "Lowest",
    SchedulerPriority.LOW: "Low",
    SchedulerPriority.BELOW_NORMAL: "BelowNormal",
    SchedulerPriority.NORMAL: "Normal",
    SchedulerPriority.ABOVE_NORMAL: "AboveNormal",
    SchedulerPriority.HIGH: "High",
    SchedulerPriority.HIGHEST: "Highest",
}
_MODE_OF = {word: mode for mode, word in MODES.items()}
_PRIORITY_OF = {word: priority for priority, word in PRIORITIES.items()}
_MIB = 1024**2
_CONFIG = "config."
_NO_RETRY, _NO_OPTIONS = RetryPolicy(), SchedulerOptions()

# Contract's field: documented field, where the names differ.
_OPTION_NAMES = {
    "partition": "queue",
    "memory_bytes_per_node": "memory",
    "gpus_per_node": "gpus",
    "constraint": "constraints",
    "include_nodes": "nodelist",
    "exclude_nodes": "exclude",
    "email": "email_notification",
}
_NAMES = {
    "design": "design_name",
    "setup": "setup_name",
    "aedt_path": "ansys_edt_path",
    "product": "solver",
    "scheduler": "scheduler_type",
    "memory_bytes": "memory_mib",
    "machines": "machine_nodes",
    "time_limit": "wall_clock_limit",
    "cancel_grace_period": "cancel_grace",
    "auto_settings": "auto",
    "not_before_time": "not_before",
    "retry.initial_delay": "retry.initial_backoff",
    "retry.max_delay": "retry.max_backoff",
    **{f"scheduler_options.{name}": f"scheduler_options.{word}" for name, word in _OPTION_NAMES.items()},
}


def to_job_config(config: HFSSSimulationConfig, scheduler: str, now: datetime | None = None) -> JobConfig:
    """Translate a documented configuration.

    Parameters
    ----------
    config : HFSSSimulationConfig
        As documented.
    scheduler : str
        Scheduler that runs it: its own, or the one that is used for jobs that name none. ``none``, ``local`` and empty
        are this host.
    now : datetime, optional
        With a zone; default: the present.

    Raises
    ------
    Refused
        INVALID_JOB, by documented field.
    """
    cluster = scheduler not in ("", SchedulerType.NONE.value, SchedulerType.LOCAL.value)
    wrong: dict[str, str] = {}
    values = _same(config)
    values["scheduler"] = "" if scheduler == SchedulerType.NONE.value else str(scheduler)
    values["scheduler_options"] = _options(config, cluster, wrong)
    values |= _for_cluster(config, scheduler, wrong, now) if cluster else _for_host(config)
    try:
        if not wrong:
            return JobConfig.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        wrong = {documented_field(field): text for field, text in field_errors(error).items()}
    fields = {f"config.{field}": text for field, text in wrong.items()}
    text = "; ".join(f"{field}: {what}" for field, what in fields.items())
    raise Refused("INVALID_JOB", f"the job is not valid: {text}", fields=fields)


def _same(config: HFSSSimulationConfig) -> dict[str, Any]:
    """Return the values that do not depend on where the job runs; None: not set."""
    layout = config.layout_options.model_dump(exclude_none=True)
    set_by_batch_options = {name.lower() for name, value in config.batch_options.items() if value}
    for name in list(layout):
        if set_by_batch_options & {key.lower() for key in LayoutOptions(**{name: layout[name]}).batch_options()}:
            del layout[name]
    return {
        "project_path": config.project_path,
        "design": config.design_name,
        "setup": config.setup_name,
        "design_mode": _MODE_OF.get(config.design_mode),
        "aedt_version": config.aedt_version,
        "aedt_path": config.ansys_edt_path,
        "product": "" if config.solver == DEFAULT_SOLVER else config.solver,
        "licenses": config.licenses,
        "cancel_grace_period": _unless(config.cancel_grace, timedelta(seconds=30)),
        "non_graphical": _unless(config.non_graphical, True),
        "monitor": _unless(config.monitor, True),
        "layout_options": layout,
        "batch_options": config.batch_options,
        "environment": config.environment,
        "wait_for_license": config.wait_for_license or None,
        "license_wait_limit": config.license_wait_limit,
        "scheduler_wait_limit": config.scheduler_wait_limit,
        "not_before_time": config.not_before,
        "retry": _retry(config.retry),
        "existing_results": _unless(config.existing_results, ExistingResults.KEEP),
        "batch": config.batch,
        "labels": config.labels,
    }


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _retry(policy: RetryPolicy) -> dict[str, Any] | None:
    if policy.max_attempts <= 1:
        return None
    found = {
        "max_attempts": policy.max_attempts,
        "reasons": policy.reasons,
        "initial_delay": _unless(policy.initial_backoff, _NO_RETRY.initial_backoff),
        "max_delay": _unless(policy.max_backoff, _NO_RETRY.max_backoff),
    }
    return {name: value for name, value in found.items() if value is not None}


def _for_host(config: HFSSSimulationConfig) -> dict[str, Any]:
    return {
        "cores": config.cores or None,
        "memory_bytes": config.memory_mib * _MIB or None,
        "machines": [_machine(node) for node in config.machine_nodes],
        "time_limit": config.wall_clock_limit,
        "distributed": config.distributed,
        "auto_settings": config.auto,
    }


def _machine(node: MachineNode) -> dict[str, Any]:
    found = {
        "hostname": node.hostname,
        "cores": node.cores,
        "memory_percent": node.utilization,
        "tasks": node.tasks,
        "max_cores": _unless(node.max_cores, DOCUMENTED_MAX_CORES),
        "gpus": node.gpus,
    }
    return {name: value for name, value in found.items() if value is not None}


def _for_cluster(
    config: HFSSSimulationConfig, scheduler: str, wrong: dict[str, str], now: datetime | None
) -> dict[str, Any]:
    """Return what a cluster job has in other fields. AEDT shares its work out by itself unless the job says else."""
    options = config.scheduler_options
    limit, begin = config.wall_clock_limit, config.not_before
    if text := options.asked("time"):
        with _collected(wrong, "scheduler_options.time"):
            limit = texts.limit_of(text, scheduler)
    if options.begin:
        with _collected(wrong, "scheduler_options.begin"):
            moment = texts.moment_of(options.begin, scheduler, now or datetime.now().astimezone())
            begin = moment if begin is None else max(begin, moment)
    return {
        "time_limit": limit,
        "not_before_time": begin,
        "distributed": True if config.distributed is None else config.distributed,
        "auto_settings": True if config.auto is None else config.auto,
    }


@contextmanager
def _collected(wrong: dict[str, str], field: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        wrong[field] = str(error)


def _options(config: HFSSSimulationConfig, cluster: bool, wrong: dict[str, str]) -> dict[str, Any]:
    options = config.scheduler_options
    memory = options.asked("memory")
    with _collected(wrong, "scheduler_options.licenses"):
        licenses = texts.licenses_of(options.licenses)
    found = {
        "partition": options.asked("queue"),
        "nodes": _unless(options.nodes, 1),
        "tasks_per_node": _unless(options.tasks_per_node, 1),
        "cores_per_node": _cores(config, cluster),
        "memory_bytes_per_node": (texts.memory_of(memory) if memory else 0) or _memory_share(config, cluster) or None,
        "gpus_per_node": options.gpus or None,
        "gpu_type": options.gpu_type,
        "exclusive": options.exclusive or None,
        "constraint": options.constraints,
        "include_nodes": texts.nodes_of(options.nodelist),
        "exclude_nodes": texts.nodes_of(options.exclude),
        "account": options.account,
        "qos": options.qos,
        "reservation": options.reservation,
        # Windows HPC is asked for the documented default too. A local run asks for nothing and needs no warning.
        "priority": None if not cluster and options.priority == "Normal" else _PRIORITY_OF[options.priority],
        "licenses": {} if wrong else licenses,
        "wckey": options.wckey,
        "email": options.email_notification,
        "comment": options.comment,
        "run_as_administrator": options.run_as_administrator or None,
        "extra": options.extra,
    }
    return {name: value for name, value in found.items() if value is not None}


def _cores(config: HFSSSimulationConfig, cluster: bool) -> int | None:
    """Return the cores on each node, at least one for each task: those of the options, else an equal share."""
    options = config.scheduler_options
    cores = options.cores_per_node
    if not cores and cluster:
        cores = _share(config.cores or sum(node.cores for node in config.machine_nodes), options.nodes)
    return max(options.tasks_per_node, cores) if cores else None


def _memory_share(config: HFSSSimulationConfig, cluster: bool) -> int:
    return _share(config.memory_mib, config.scheduler_options.nodes) * _MIB if cluster else 0


def _share(whole: int, parts: int) -> int:
    return -(-whole // parts)


def from_job_config(config: JobConfig, jobid: str = "", user: str = "") -> HFSSSimulationConfig:
    """Translate a configuration of the contract; it was accepted, so that nothing is validated.

    Parameters
    ----------
    config : JobConfig
        Of the contract.
    jobid, user : str
        Id and user of the job, which the documented configuration contains.
    """
    cluster = config.on_cluster
    limit = config.time_limit or None  # a limit of 0 is none
    grace = config.cancel_grace_period
    return HFSSSimulationConfig.model_construct(
        project_path=config.project_path,
        jobid=jobid,
        user=user,
        solver=config.product or DEFAULT_SOLVER,
        ansys_edt_path=config.aedt_path,
        aedt_version=config.aedt_version,
        design_name=config.design,
        design_mode=MODES[config.design_mode] if config.design_mode is not None else "",
        setup_name=config.setup,
        machine_nodes=tuple(_machine_node(machine) for machine in config.machines),
        distributed=_flag(config.distributed, cluster, _many_tasks(config)),
        auto=_flag(config.auto_settings, cluster, False),
        non_graphical=config.non_graphical is not False,
        monitor=config.monitor is not False,
        layout_options=HFSS3DLayoutBatchOptions.model_construct(
            **{name: value for name, value in config.layout_options if value is not None and value != ""}
        ),
        scheduler_type=_scheduler_type(config.scheduler),
        scheduler_options=_documented_options(config, cluster),
        cores=config.cores or 0,
        memory_mib=_share(config.memory_bytes or 0, _MIB),
        licenses=dict(config.licenses),
        environment=dict(config.environment),
        wall_clock_limit=None if cluster else limit,
        cancel_grace=timedelta(seconds=30) if grace is None else grace,
        retry=_retry_policy(config.retry),
        wait_for_license=bool(config.wait_for_license),
        license_wait_limit=config.license_wait_limit,
        scheduler_wait_limit=config.scheduler_wait_limit,
        existing_results=config.existing_results or ExistingResults.KEEP,
        not_before=config.not_before_time,
        labels=dict(config.labels),
        batch=config.batch,
        batch_options=dict(config.batch_options),
    )


def _flag(value: bool | None, cluster: bool, default: bool) -> bool | None:
    """Return a documented flag. On a cluster the documented "not set" passes it, the contract's takes the default."""
    if not cluster:
        return value
    return None if (default if value is None else value) else False


def _many_tasks(config: JobConfig) -> bool:
    options = config.scheduler_options
    return (options.nodes or 1) * (options.tasks_per_node or 1) > 1


def _scheduler_type(name: str) -> SchedulerType | str:
    """Return the documented word; a plug-in, which is not among the documented schedulers, keeps its name."""
    try:
        return SchedulerType(name or SchedulerType.NONE.value)
    except ValueError:
        return name


def _machine_node(machine: Machine) -> MachineNode:
    return MachineNode.model_construct(
        hostname=machine.hostname or "localhost",
        cores=machine.total_cores,
        max_cores=DOCUMENTED_MAX_CORES if machine.max_cores is None else machine.max_cores,
        utilization=90 if machine.memory_percent is None else machine.memory_percent,
        tasks=1 if machine.tasks is None else machine.tasks,
        gpus=machine.gpus,
    )


def _retry_policy(retry: RetryOptions | None) -> RetryPolicy:
    if retry is None:
        return _NO_RETRY
    return RetryPolicy.model_construct(
        max_attempts=3 if retry.max_attempts is None else retry.max_attempts,
        reasons=retry.reasons,
        initial_backoff=_NO_RETRY.initial_backoff if retry.initial_delay is None else retry.initial_delay,
        max_backoff=_NO_RETRY.max_backoff if retry.max_delay is None else retry.max_delay,
    )


_WRITE: Mapping[str, Callable[[Any], Any]] = {
    "memory_bytes_per_node": texts.memory_text,
    "include_nodes": ",".join,
    "exclude_nodes": ",".join,
    "licenses": lambda counts: tuple(sorted(f"{name}:{count}" for name, count in counts.items())),
    "priority": PRIORITIES.__getitem__,
    "extra": dict,
}


def _documented_options(config: JobConfig, cluster: bool) -> SchedulerOptions:
    values: dict[str, Any] = {}
    for name, value in config.scheduler_options:
        if value is not None and value != ContractOptions.model_fields[name].get_default(call_default_factory=True):
            write = _WRITE.get(name)
            values[_OPTION_NAMES.get(name, name)] = value if write is None else write(value)
    if cluster and config.time_limit is not None:
        values["time"] = texts.limit_text(config.time_limit)
    return SchedulerOptions.model_construct(**values) if values else _NO_OPTIONS


def documented_refusal(refused: Refused) -> Refused:
    """Return a refusal with the documented names of the configuration's fields."""
    message, fields = refused.message, {}
    for field, what in refused.fields.items():
        name = field
        if field.startswith(_CONFIG):
            name = _CONFIG + documented_field(field[len(_CONFIG) :])
            message = message.replace(field, name)
        fields[name] = what
    return Refused(refused.reason, message, fields=fields, metadata=refused.metadata)


def documented_field(path: str) -> str:
    """Return the documented path of a field of the contract's configuration."""
    for name, word in _NAMES.items():
        if path == name or path.startswith((f"{name}.", f"{name}[")):
            return word + path[len(name) :]
    return path
