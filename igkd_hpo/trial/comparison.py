"""The comparison of a study's students with its teacher by their features, tried before anything is trained."""

import torch

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.teacher_network import build_body, load_given_body, teacher_request, wrap
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.features import check_comparable
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import StudyFileError, UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.student import make_body, students_at_end


def check_features(study: Study, dataset: Dataset, settings: Settings) -> None:
    """Raise StudyFileError where a student has nothing that terms on features could compare with the teacher.

    The smallest student of each architecture is tried, for what is cut off can be compared no more.
    """
    config, statistics = study.teacher, (dataset.mean, dataset.std)
    in_pairs = study.hyperparameters.highest("skt_inter_weight") > 0
    request = teacher_request(config, dataset.num_classes, dataset.image_size, settings)
    with torch.random.fork_rng(devices=[]):  # the weights do not matter
        body, _ = build_body(config, request) if config.is_trained_here else load_given_body(config, request, settings)
        teacher = wrap(body, config, request, statistics)
        for values in students_at_end(study, largest=False):
            student = make_body(values, dataset.num_classes, dataset.image_size, settings.allow_import)
            try:
                check_comparable(Network(student, *statistics), teacher, dataset.image_size, in_pairs=in_pairs)
            except UsageError as error:
                knobs = ", ".join(f"{name} {value}" for name, value in values.items() if name != "architecture")
                named = f"{values['architecture']}{f' ({knobs})' if knobs else ''}"
                raise StudyFileError(f"{study.name}: student {named}: {error}") from error
