"""What is said of nodes before a launch."""

from collections.abc import Sequence
from importlib.metadata import version

from igkd_hpo.engines.ray.messages import NodeReport
from igkd_hpo.errors import StorageError, UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.words import byte_size, counted


def describe_node(report: NodeReport, *, packed: bool) -> str:
    """Say in one line what a node has; `packed`: the assets are made, so that it is known what it lacks."""
    if report.fault is not None:
        return f"{report.fault}: no worker can run there"
    database = "database reached" if report.database is None else f"NO DATABASE: {report.database}"
    assets = f", {byte_size(report.missing_bytes)} of assets to send" if report.missing_bytes else ", assets there"
    remote = "" if report.remote is None else f", NO REMOTE FOLDER: {report.remote}"
    place = "sees this folder" if report.shared else f"has a folder of its own{assets if packed else ''}"
    return f"node {report.host}: igkd-hpo {report.igkd_hpo}, torch {report.torch}, {database}{remote}, {place}"


def refuse_unfit(reports: Sequence[NodeReport]) -> None:
    """Raise UsageError or StorageError where a node cannot run a worker; the first is named."""
    faults = [report.fault for report in reports if report.fault is not None]
    if faults:
        raise UsageError(
            f"{faults[0]}{_and_others(faults)}; install the same igkd-hpo, PyTorch included, for the Python that Ray "
            "runs with on every node"
        )
    away = [report for report in reports if report.database is not None]
    if away:
        raise StorageError(f"node {away[0].host}{_and_others(away)} cannot use the database: {away[0].database}")
    without = [report for report in reports if report.remote is not None]
    if without:
        raise UsageError(f"node {without[0].host}{_and_others(without)}: {without[0].remote}")


def remarks(reports: Sequence[NodeReport], settings: Settings) -> list[str]:
    """Say what people should know of nodes that can run workers, each in a line."""
    said = []
    apart = [report for report in reports if not report.shared and report.fault is None]
    if apart:
        nodes = f"{len(apart)} of {counted(len(reports), 'node')}"
        said.append(
            f"{nodes} do not see {settings.paths.root}: assets are sent there, weights and pictures of trials that "
            f"ended come back; {_after_death(settings)}"
        )
        if settings.allow_import:
            said.append(f"they need {', '.join(sorted(settings.allow_import))} installed: code is not sent")
    here = version("torch")
    others = sorted({report.torch for report in reports if report.torch not in (None, here)}, key=str)
    if others:
        said.append(
            f"torch is {here} here and {', '.join(map(str, others))} on nodes: results may differ in last digits"
        )
    return said


def _after_death(settings: Settings) -> str:
    if settings.remote is None:
        return "a trial whose node dies begins anew"
    return "a trial whose node dies goes on from its last checkpoint in IGKD_HPO_REMOTE"


def _and_others(found: Sequence[object]) -> str:
    return f" and {counted(len(found) - 1, 'other node')}" if len(found) > 1 else ""
