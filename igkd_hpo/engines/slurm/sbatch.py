"""Hand a job array to Slurm's own `sbatch`, with the address of the database in nothing that others can read."""

import json
import os
import re
import shlex
import subprocess

from igkd_hpo.engines.slurm.job_array import JobArray
from igkd_hpo.errors import IgkdError
from igkd_hpo.files import make_folder
from igkd_hpo.search.storage_url import mask
from igkd_hpo.settings import Settings


def submit(array: JobArray, settings: Settings) -> int:
    """Submit a job array, note it for the reader of the queue, and return its number.

    Raises:
        IgkdError: Slurm takes no such job.
    """
    make_folder((array.folder / array.log).parent)  # without it tasks end without a word
    said, _ = _sbatch(array, settings, "--parsable")
    job = int(re.findall(r"\d+", said)[0])
    record = {"job": job, "study": array.study, "storage": mask(settings.storage_url)}
    with settings.paths.slurm_jobs.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return job


def try_out(array: JobArray, settings: Settings) -> str:
    """Return what Slurm would do with a job array, in lines. Raises IgkdError: it takes no such job."""
    return _sbatch(array, settings, "--test-only")[1]


def _sbatch(array: JobArray, settings: Settings, how: str) -> tuple[str, str]:
    """Return standard output and standard error of sbatch."""
    # What --storage and --allow-import said here is in no argument and in no script: others can read those.
    told = {
        "IGKD_HPO_STORAGE": settings.storage_url,
        "IGKD_HPO_DATA": str(settings.data_root),
        "IGKD_HPO_ALLOW_IMPORT": ",".join(sorted(settings.allow_import)),
    }
    done = subprocess.run(
        # Arguments, and not the lines of the script alone: a site's variables (SBATCH_EXPORT) win over lines.
        ["sbatch", *array.options, how],
        input=os.fsencode(array.script()),
        cwd=array.folder,
        env=os.environ | told,
        capture_output=True,
        check=False,
    )
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        said = " ".join(err.replace("sbatch: error: ", "").split())
        raise IgkdError(f"Slurm takes no such job: {said}; --sbatch was {shlex.join(array.sbatch)!r}")
    return out, err
