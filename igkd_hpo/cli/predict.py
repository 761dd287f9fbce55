"""`igkd-hpo predict`: the likeliest classes of images, by a bundle's network."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from igkd_hpo.cli.arguments import AsJson, print_json, print_line
from igkd_hpo.errors import DataError
from igkd_hpo.files import user_path
from igkd_hpo.words import percent


def predict(
    bundle: Annotated[Path, Argument(metavar="BUNDLE", help="The folder that export --bundle wrote.")],
    images: Annotated[list[Path], Argument(metavar="IMAGE...", help="Image files.")],
    as_json: AsJson = False,
) -> None:
    """Show the likeliest classes of images, as the exported network sees them; what is no image is named at the end.

    Examples:
        igkd-hpo predict digits-bundle photo.jpg
        igkd-hpo predict digits-bundle pictures/*.png --json
    """
    from igkd_hpo.bundle.prediction import predict_images

    predictions, errors = predict_images(user_path(bundle), [user_path(image) for image in images])
    if as_json:
        classes = [[{"name": name, "probability": share} for name, share in one.classes] for one in predictions]
        print_json([{"image": one.image, "classes": of_one} for one, of_one in zip(predictions, classes, strict=True)])
    for prediction in () if as_json else predictions:
        shown = ", ".join(f"{name} {percent(share, 1)}" for name, share in prediction.classes)
        print_line(f"{prediction.image}: {shown}")
    if errors:
        raise DataError(*errors)
