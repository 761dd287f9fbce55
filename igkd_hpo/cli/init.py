"""`igkd-hpo init`: a first study file for a folder of images."""

from typing import Annotated

from typer import Argument, Option

from igkd_hpo.cli.arguments import Device, print_file, print_line


def init(
    folder: Annotated[
        str,
        Argument(metavar="FOLDER", help="The folder that holds train, with a folder for each class; or a list in CSV."),
    ],
    output: Annotated[
        str | None,
        Option("-o", "--output", help="Where to write the study file; - is standard output.", show_default="NAME.yaml"),
    ] = None,
    under: Annotated[
        list[str] | None,
        Option(
            "--under", metavar="KEY=VALUE", help="A limit of the device, such as parameters=500k or latency_ms=5ms."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        Option("--teacher", metavar="NAME", help="The network that the teacher begins as, of timm or torchvision."),
    ] = None,
    weights: Annotated[
        str | None, Option("--weights", metavar="FILE", help="Its weights, where published ones are not to be used.")
    ] = None,
    follow_links: Annotated[
        bool, Option("--follow-links", help="Read also what links lead to outside of FOLDER.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Look at a folder of images and at this machine, and write a study file that is good as it is.

    Examples:
        igkd-hpo init flowers
        igkd-hpo init flowers -o small.yaml --under parameters=500k
    """
    from igkd_hpo.api.init import default_file, refuse_existing, write_new
    from igkd_hpo.api.init import init as api
    from igkd_hpo.api.source import settings_here
    from igkd_hpo.files import user_path

    if output != "-":  # before seconds of looking
        path = default_file(folder, settings_here()) if output is None else user_path(str(output))
        refuse_existing(path)
    first = api(folder, under=under or (), teacher=teacher, weights=weights, follow_links=follow_links, device=device)
    if output == "-":
        print_file(first.text)
    else:
        write_new(path, first.text)
        print_line(f"{path}: written; change what you know better, then `igkd-hpo launch {path}`", err=True)
    for line in first.about:
        print_line(line, err=True)
