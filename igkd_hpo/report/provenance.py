"""Provenance of a report's figures: versions, hashes, seeds, machines, data and teacher."""

import platform
from collections import Counter
from importlib.metadata import version

import igkd_hpo
from igkd_hpo.config.commit import code_commit
from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.search.best import BestTrial
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import counted

_PACKAGES = ("torch", "torchvision", "captum", "optuna", "numpy", "scipy")


def provenance_facts(
    study: SearchStudy, trained: tuple[SearchStudy, BestTrial] | None, confirmation: Confirmation | None
) -> list[tuple[str, str]]:
    """Return names and values, as text, in the order in which they are read."""
    config, record = study.config, study.read()
    pins, attributes = record.pins, record.attributes
    root = f" from {config.dataset.root}" if config.dataset.root else ""
    begun = "" if config.teacher.weights is None else f" from the weights {config.teacher.weights}"
    teacher = ", ".join(config.teacher.checkpoints) or f"trained here for {config.teacher.epochs} epochs{begun}"
    if config.teacher.n_networks > 1:
        teacher += f", {config.teacher.n_networks} networks"
    facts = [
        ("study", study.name),
        ("created by", str(attributes.get("created_by", "unknown"))),
        ("last launched", str(attributes.get("launched", "unknown"))),
        ("fingerprint of the study", str(attributes["fingerprint"])),
        ("data", f"{config.dataset.name}{root}; split with seed {config.dataset.split_seed}"),
        ("SHA-256 of the data", pins.dataset_sha256 if pins else "not known yet"),
        ("teacher", f"{config.teacher.architecture}, {teacher}"),
        ("SHA-256 of the teacher", pins.teacher_sha256 if pins else "not known yet"),
        ("seeds of the search", f"{config.training.seed} plus the number of the trial"),
    ]
    if confirmation is not None:
        facts += [
            ("seeds of the confirmation", ", ".join(map(str, confirmation.arms[0].seeds))),
            ("test split", f"{confirmation.n_test_images:,} images, opened at {', '.join(confirmation.opened)}"),
        ]
    if trained is not None:
        source, best = trained
        facts.append(("the student above", f"trial {best.number} of {source.name}, seed {best.seed}"))
        if best.execution is not None:
            how = best.execution
            steps = "steps as a CUDA graph" if how.compile == "cuda_graph" else "steps not compiled"
            machine = f"{how.device}, threads: {how.threads}, {how.precision}, {how.memory_format}"
            facts.append(("how it was trained", f"{machine}, {steps}, torch {how.torch}"))
        if best.cost.get("latency_of"):
            facts.append(("how its latency was measured", str(best.cost["latency_of"])))
    machines = Counter(
        f"{trial.user_attrs['host']} ({trial.user_attrs.get('device', 'device unknown')})"
        for trial in study.trials()
        if "host" in trial.user_attrs
    )
    by_machine = [f"{machine}: {counted(count, 'trial')}" for machine, count in machines.most_common(20)]
    if len(machines) > 20:
        by_machine.append(f"{len(machines) - 20} more")
    commit = code_commit() or "not known, because it was installed"
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return [
        *facts,
        ("hosts and devices", "; ".join(by_machine) or "none yet"),
        ("this page was written by", f"igkd-hpo {igkd_hpo.__version__}, commit {commit}"),
        ("with", f"Python {platform.python_version()}, {versions}"),
    ]
