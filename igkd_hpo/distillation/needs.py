"""What a training needs, and whether it is there."""

from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe, weights
from igkd_hpo.distillation.teaching import Teaching


def check_needs(data: TrainingData, recipe: Recipe, teaching: Teaching | None, teacher: Network | None) -> None:
    """Raise ValueError where data, recipe, teaching and teacher do not fit each other, see `Training`."""
    n_images = len(data.images)
    if recipe.batch_size < 2 or n_images < 2:
        raise ValueError(
            f"batch_size is {recipe.batch_size} and there are {n_images} training images; "
            "batch normalisation needs 2 or more of both"
        )
    if len(data.validation_images) == 0:
        raise ValueError("there are no validation images; set some aside, validation is part of every epoch")
    if recipe.epochs < 1:
        raise ValueError(f"epochs is {recipe.epochs}; it must be 1 or more")
    if recipe.uses(Role.FEATURES) and teacher is None:
        raise ValueError("a term on features has a weight above 0, which needs the teacher; give it, or weight 0")
    has_logits = teaching is not None or (recipe.uses(Role.FEATURES) and recipe.alignment == "aligned")
    if recipe.uses(Role.LOGITS) and not has_logits:
        raise ValueError(f"alpha is {recipe.alpha}, which needs a teacher's logits; give them, or alpha 0")
    if recipe.uses(Role.MAPS) and data.maps is None:
        values = ", ".join(f"{name} is {recipe.number(name)}" for name in weights(Role.MAPS))
        raise ValueError(f"{values}, which needs attribution maps; give them, or 0 for each")
    if recipe.cutout > (side := min(data.images.shape[2:])):
        raise ValueError(f"cutout is {recipe.cutout} pixels, more than the images have ({side}); lower it")
    for name, rows in (("labels", data.labels), ("maps", data.maps)):
        if rows is not None and len(rows) != n_images:
            raise ValueError(f"there are {len(rows)} {name} for {n_images} training images; row i must be image i")
