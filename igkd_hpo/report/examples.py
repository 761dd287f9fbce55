"""Examples of what the teacher and the confirmed students look at: validation images, the least agreement first."""

from dataclasses import dataclass

from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.errors import IgkdError
from igkd_hpo.report.data_uri import image_uri, map_uri
from igkd_hpo.report.gallery import assets_here
from igkd_hpo.search.confirmation_study import arm_trials, open_confirmation
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """One image and the maps of it, as data URIs of PNGs, in the order of `Examples.names`."""

    name: str
    image: str
    maps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of pictures, and in words why some are missing.

    Args:
        names: whose maps: the teacher, then the students that are on this machine, the first seed of each.
    """

    names: tuple[str, ...] = ()
    rows: tuple[ExampleRow, ...] = ()
    missing: str | None = None


def make_examples(study: SearchStudy, confirmation: Confirmation, settings: Settings) -> Examples:
    """Make the maps of the images that a confirmation's explanations name; there must be some."""
    found, linked = confirmation.explanations, open_confirmation(study.storage, study.name)
    assert found is not None, "explanations were made"
    assert linked is not None, "there is a confirmation, so there is its study"
    assets, reason = assets_here(study, settings)
    if assets is None:
        return Examples(missing=reason)

    import torch

    from igkd_hpo.assets.map_plan import MapPlan, fit_maps, make_maps, points_at_once
    from igkd_hpo.distillation.overlay import normalize_maps

    cpu, dataset = torch.device("cpu"), assets.dataset
    plan = MapPlan(n_steps=found.n_steps, agreement=None, points=points_at_once(study.config, dataset, cpu))
    rows = torch.tensor([example.row for example in found.examples])
    if len(rows) == 0 or int(rows.max()) >= len(dataset.validation_labels):
        return Examples(missing="The images that were explained are not those of this machine.")
    labels, images = dataset.validation_labels[rows], dataset.validation_images[rows]
    trials = {trial.number: trial for trial in arm_trials(linked.trials())}
    try:
        teachers = assets.teachers.networks(cpu)
    except IgkdError as error:
        return Examples(missing=f"The teacher of this study cannot be asked on this machine: {error}.")
    looks = [("teacher", teachers, dataset.shown.validation_images[rows], dataset.shown.mean)]
    missing = []
    for arm in found.arms:
        trial = trials.get(arm.trials[0])
        kept = (
            None
            if trial is None
            else kept_network(
                linked.config,
                assets,
                settings,
                folder=linked.folder,
                number=trial.number,
                hyperparameters=trial.user_attrs["hyperparameters"],
                seed=trial.user_attrs["seed"],
            )
        )
        if kept is None:
            missing.append(arm.name)
        else:
            looks.append((arm.name, [kept[0]], images, dataset.mean))
    maps = []
    for _, networks, some, colour in looks:
        made, _ = make_maps(networks, some, labels, baseline=torch.tensor(colour), plan=plan, device=cpu)
        maps.append(normalize_maps(fit_maps(made, dataset.image_size), torch.ones(len(rows))).numpy())
    return Examples(
        names=tuple(name for name, *_ in looks),
        rows=tuple(
            ExampleRow(
                name=f"{dataset.class_names[label]}: {example.correlation:.2f}",
                image=image_uri(image.numpy()),
                maps=tuple(map_uri(of[i]) for of in maps),
            )
            for i, (example, label, image) in enumerate(zip(found.examples, labels.tolist(), images, strict=True))
        ),
        missing=f"The weights of {', '.join(missing)} are not in storage/checkpoints on this machine."
        if missing
        else None,
    )
