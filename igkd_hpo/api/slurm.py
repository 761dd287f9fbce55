"""Workers on Slurm: `launch` submits them and leaves, and from then on Slurm and the database know about them."""

import shutil
import sys
from dataclasses import dataclass
from typing import Literal

from igkd_hpo.engines.engine import Host
from igkd_hpo.engines.slurm.job_array import JobArray, sbatch_options
from igkd_hpo.engines.slurm.sbatch import submit, try_out
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage_url import is_server, mask
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Workers as the tasks of a Slurm job array, which `launch` submits and leaves.

    Args:
        sbatch: options for sbatch, as on its command line: `--partition=gpu --gres=gpu:1 --time=04:00:00`.

    Raises:
        UsageError: one of them is not to be had here.
    """

    sbatch: str = ""

    def __post_init__(self) -> None:
        sbatch_options(self.sbatch)

    def check(self, workers: int | Literal["auto"], settings: Settings) -> None:
        """Raise UsageError where nothing could be submitted from here, or the nodes could not work."""
        here = str(settings.paths.root.parent)
        if workers in ("auto", 0):
            raise UsageError(f"--workers {workers} is no number of tasks for Slurm; give 1 or more")
        if not is_server(settings.storage_url):
            advice = "name a PostgreSQL database, with --storage or IGKD_HPO_STORAGE"
            raise UsageError(f"nodes of a cluster cannot share the file {mask(settings.storage_url)}; {advice}")
        if set("%\\") & set(here):
            raise UsageError(f"Slurm cannot write logs below {here}, for it reads % and \\ itself; use another folder")
        if shutil.which("sbatch") is None:
            raise UsageError("there is no sbatch on the PATH; launch from a host of the cluster, or load its module")

    def submit(self, study: SearchStudy, host: Host, *, workers: int | Literal["auto"]) -> tuple[str, str]:
        """Submit the workers of a study; return two lines for people. Raises IgkdError: Slurm takes no such job."""
        array = self._job_array(study.name, study.folder, host.settings, workers=workers, device=host.device)
        job = submit(array, host.settings)
        watch, end = f"igkd-hpo status {study.name} --watch", f"igkd-hpo stop {study.name} --now"
        return (
            f"submitted as job {job}: {counted(array.tasks, 'worker')}; what they say is in {array.log}",
            f"to watch: {watch}; to end the study: {end}; to take its workers away: scancel {job}",
        )

    def try_out(self, study: str, settings: Settings, *, workers: int | Literal["auto"], device: str) -> str:
        """Return the batch script of a study's workers, with what Slurm says of it as comments at the end.

        Raises:
            IgkdError: Slurm takes no such job.
        """
        array = self._job_array(study, study, settings, workers=workers, device=device)
        said = try_out(array, settings).splitlines()
        return "\n".join([array.script(), *(f"# {line}" for line in said), ""])

    def _job_array(
        self, study: str, folder: str, settings: Settings, *, workers: int | Literal["auto"], device: str
    ) -> JobArray:
        here = settings.paths.root.parent
        return JobArray(
            study=study,
            tasks=int(workers),
            folder=here,
            log=settings.paths.slurm_log(folder).relative_to(here),
            python=sys.executable,
            device=device,
            sbatch=sbatch_options(self.sbatch),
        )
