"""Weights that a network begins with: a library's own or a file's, kept without their classifier, so that no trial and
no other host needs the network."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from igkd_hpo.assets.checkpoint import read_tensors, shapes_of, weights_hash
from igkd_hpo.assets.checkpoint_fit import Shape, describe_misfit, find_fits, is_counter
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import Asset, AssetStore, content_hash
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import Published, Request, Triple, find_architecture
from igkd_hpo.errors import AssetError, AssetMissing, DataError, UsageError
from igkd_hpo.settings import Settings

_SCHEMA = 1
_FILE = "weights.safetensors"
_SIDES = (224, 256, 384)  # of the images that networks of one size are published for
_NEW = 0.01  # deviation of a new classifier's weights, as of torchvision's


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to begin with, and where they are from.

    Args:
        sha256: of names, types, shapes and numbers.
        classifier: names of the network's tensors that are not in them, since they depend on the classes.
        mean: of the input that they were trained with, in [0, 1] pixels, as is `std`; None where that is not known.
        source: the library's tag, or the file's name.
        licence: as the library tells it; None of a file, and where it does not tell.
        url: where the library has them from; None of a file.
        image_size: that they are known to fit; None where that was not looked at.
    """

    asset: Asset
    sha256: str
    classifier: tuple[str, ...]
    mean: Triple | None
    std: Triple | None
    source: str
    licence: str | None
    url: str | None
    image_size: tuple[int, int] | None = None

    def fits(self, own: Mapping[str, Tensor]) -> bool:
        """Return whether they are of a network with these tensors, which some have otherwise for other images."""
        return all(name in own and own[name].shape == tensor.shape for name, tensor in self.tensors().items())

    def statistics(self) -> tuple[Triple, Triple]:
        """Return mean and std. Raises DataError where they are not known."""
        if self.mean is None or self.std is None:
            raise DataError(
                f"what {self.source} was trained with is not known; write normalize: [[mean x3], [std x3]], or dataset"
            )
        return self.mean, self.std

    def tensors(self) -> dict[str, Tensor]:
        """Read the tensors by their names in the network's state dict."""
        from safetensors.torch import load

        return load(self.asset.read(_FILE))


def prepare_weights(
    request: Request, file: str | None, settings: Settings, store: AssetStore, progress: Progress, *, key: str
) -> Weights:
    """Return the weights of a network, taken in unless they were before.

    Args:
        file: as the study file names it; None for the library's own, which are downloaded once.
        key: the study file's, for messages.

    Raises:
        DataError: there are none, they cannot be had, or they are of another network.
        UsageError: there is no such network.
        AssetError: the asset is damaged or cannot be written.
    """
    path = None if file is None else settings.data_path(file)
    known = None
    if path is None or not path.exists():
        with suppress(AssetMissing):
            known = open_weights(request, file, store)
        if known is not None and known.image_size == request.image_size:
            return known
    own, other = _state(request, request.num_classes), _state(request, request.num_classes + 1)
    if known is not None and known.fits(own):
        store.remember("weights", _requests(request, file)[0], known.asset)
        return known
    classifier = tuple(name for name in own if name not in other or other[name].shape != own[name].shape)
    if path is None:
        progress.note(f"getting the weights of {request.name}")
        published = _published(request)
        tensors, place = published.tensors, f"of {request.name}"
        source, licence, url = published.origin
    else:
        tensors, place = read_tensors(path, called=key), f"{key} {path}"
        source, licence, url = path.name, None, None
    statistics = find_architecture(request.name).statistics
    mean, std = (statistics and statistics(request)) or (None, None)
    facts = {"mean": mean, "std": std, "licence": licence, "url": url, "source": source}
    body = {name: tensor for name, tensor in own.items() if name not in classifier}
    taken = _select(request, tensors, body, place, progress, classifier=classifier)
    digest = weights_hash(taken)
    with store.build("weights", {"schema": _SCHEMA, "network": request.name, "weights": digest}, progress) as draft:
        asset = draft.finished
        if asset is None:
            from safetensors.torch import save

            draft.write(_FILE, save(taken))
            asset = draft.commit({**facts, "sha256": digest, "classifier": list(classifier)})
    for wanted in _requests(request, file):
        store.remember("weights", wanted, asset)
    return _from_asset(asset, request.image_size)


def open_weights(request: Request, file: str | None, store: AssetStore) -> Weights:
    """Open the weights as last prepared for images of this size. Raises AssetMissing, AssetError."""
    sized, unsized = _requests(request, file)
    try:
        return _from_asset(store.recall("weights", sized), request.image_size)
    except AssetMissing:  # as before the size counted
        return _from_asset(store.recall("weights", unsized))


def students_weights(study: Study) -> dict[str, str | None]:
    """List the networks whose students can begin with weights, each with the file of them that the study names."""
    if "pretrained" not in study.hyperparameters.words("init"):
        return {}
    return {name: study.student.weights_of(name) for name in study.hyperparameters.words("architecture")}


def combined_hash(weights: Mapping[str, Weights]) -> str | None:
    """Hash what a study pins: the weights of all networks; None where there are none."""
    return content_hash({name: one.sha256 for name, one in weights.items()}) if weights else None


def begin_with(body: nn.Module, weights: Weights, *, cut: bool) -> frozenset[str]:
    """Load weights into a body of any number of classes, and return the names of what was loaded.

    The new classifier is drawn from torch's global generator, near zero, so that its first gradients do not undo what
    was loaded: timm draws some of them so wide that with 10 classes the first loss is above 5.

    Args:
        cut: whether stages are cut from it, so that what comes after the cut is another network's.

    Raises:
        AssetError: the weights are of another version of the network.
    """
    own = {name: tensor for name, tensor in body.state_dict().items() if isinstance(tensor, Tensor)}
    given = weights.tensors()
    taken = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    lacking = {name for name in own.keys() - taken.keys() - set(weights.classifier) if not is_counter(name)}
    order = list(own)
    last = max((order.index(name) for name in taken), default=len(own))
    if lacking and not (cut and all(order.index(name) > last for name in lacking)):
        raise AssetError(
            f"{weights.asset.folder} lacks {min(lacking)} of the network: its library has another version here; "
            "delete that folder and run `igkd-hpo prepare STUDY`"
        )
    body.load_state_dict(taken, strict=False)
    for name, tensor in body.named_parameters():
        if name in weights.classifier:
            nn.init.normal_(tensor, std=_NEW) if tensor.ndim > 1 else nn.init.zeros_(tensor)
    return frozenset(taken)


def _requests(request: Request, file: str | None) -> tuple[dict[str, object], dict[str, object]]:
    """Return what is asked for, with the size of the images, and without."""
    unsized: dict[str, object] = {"schema": _SCHEMA, "network": request.name, "file": file}
    return {**unsized, "image_size": list(request.image_size)}, unsized


def _from_asset(asset: Asset, image_size: tuple[int, int] | None = None) -> Weights:
    facts = asset.facts
    return Weights(
        asset=asset,
        sha256=str(facts["sha256"]),
        classifier=tuple(facts["classifier"]),
        mean=_triple(facts["mean"]),
        std=_triple(facts["std"]),
        source=str(facts["source"]),
        licence=facts["licence"],
        url=facts["url"],
        image_size=image_size,
    )


def _triple(numbers: list[float] | None) -> Triple | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])


def _other_size(request: Request, given: Mapping[str, Shape], classifier: Collection[str]) -> int | None:
    """Return for which other images the network has tensors of these shapes; None for none of the usual ones."""
    for side in _SIDES:
        with suppress(UsageError):
            own = shapes_of(_state(replace(request, image_size=(side, side)), request.num_classes))
            if find_fits(given, {name: shape for name, shape in own.items() if name not in classifier})[0].whole:
                return side
    return None


def _ends_with(name: str, wanted: Collection[str], *, but: Collection[str]) -> bool:
    """Return whether a name is one of the wanted below some prefix, and none of the others."""
    parts = name.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    return any(end in wanted for end in ends) and not any(end in but for end in ends)


def _published(request: Request) -> Published:
    get = find_architecture(request.name).published
    if get is None:
        raise DataError(f"nobody has published weights of {request.name}; name a file of them, or write init: random")
    return get(request)


def _state(request: Request, num_classes: int) -> dict[str, Tensor]:
    kind = find_architecture(request.name)
    with torch.random.fork_rng([]):
        body = kind.build(replace(request, num_classes=num_classes))
    return {name: tensor for name, tensor in body.state_dict().items() if isinstance(tensor, Tensor)}


def _select(
    request: Request,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    place: str,
    progress: Progress,
    *,
    classifier: Collection[str],
) -> dict[str, Tensor]:
    """Return the tensors by the network's names. Raises DataError where they do not fit, or are no weights."""
    given, expected = shapes_of(tensors), shapes_of(own)
    fit, *others = find_fits(given, expected)
    if not fit.whole:  # for a layer beside the classifier, that belongs to the body, its own looks like one too many
        given = {name: shape for name, shape in given.items() if not _ends_with(name, classifier, but=own)}
        fit, *others = find_fits(given, expected)
    if not fit.whole:
        finding, _ = describe_misfit(fit, given, expected, num_classes=request.num_classes)
        if (side := _other_size(request, given, classifier)) is not None:
            height, width = request.image_size
            raise DataError(
                f"{place} is of {request.name} for images of {side}x{side}, and these have {height}x{width}; give them "
                "that size, or take a network that is the same for all"
            )
        raise DataError(f"{place} {finding}; give weights of {request.name}, or the name of their network")
    taken = {name: tensors[theirs].detach().clone().contiguous() for name, theirs in fit.names.items()}
    for name, tensor in taken.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise DataError(
                f"{place} has {str(tensor.dtype).removeprefix('torch.')} numbers as {name}, as quantised weights have; "
                "give the float ones that these were made of"
            )
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{place} has numbers as {name} that are not finite; give weights that were trained well")
    if others:
        called = [one.called or "the weights at the top" for one in (fit, *others)]
        progress.note(f"{place}: {called[0]} taken, and not {', '.join(called[1:])}")
    return taken
