"""The terms that compare a student's features with its teacher's, and the adapter that is learned beside it."""

from collections.abc import Collection
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from igkd_hpo.distillation.attention_table import AttentionTable
from igkd_hpo.distillation.blocks import ByBlock, Features, last_common_block, share_blocks
from igkd_hpo.distillation.evaluation import evaluating, padded_batches
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.taps import ByStride, common_strides, to_same_size
from igkd_hpo.distillation.teaching import TEACHER_BATCH
from igkd_hpo.distillation.terms import Comparison, Places, comparing_files
from igkd_hpo.distillation.terms.attention import (
    attention_blocks,
    attention_map,
    attention_strides,
    attention_transfer,
)
from igkd_hpo.distillation.terms.hint import hint
from igkd_hpo.distillation.terms.skt import check_pairs
from igkd_hpo.distillation.terms.teacher_tail import teacher_tail

# The first block of MobileNet-V2, and the last of each width: what is between them gives features of the same shape.
_ENDS_OF_WIDTHS = (0, 1, 3, 6, 10, 13, 16, 17)


class Featured(Protocol):
    """A network that gives features of several places, each named by a number."""

    def channels(self, place: int, /) -> int:
        """Return how many channels the features of that place have."""
        ...

    def run(self, pixels: Tensor, places: Collection[int], /, *, logits: bool = True) -> tuple[Features, Tensor | None]:
        """Return the features of pixels (B, 3, H, W) in [0, 1] at these places and, if wanted, the logits."""
        ...


class Taught(NamedTuple):
    """A teacher's answers to clean views.

    Args:
        features: by place, where terms ask for more than attention.
        attention: maps (B, H, W) by place, see `attention_map`.
        logits: float32 (B, K); None where nobody asked for them.
    """

    features: Features = {}  # noqa: RUF012  # never changed
    attention: Features = {}  # noqa: RUF012
    logits: Tensor | None = None


def ask_featured(
    network: Network, featured: Featured, pixels: Tensor, places: Collection[int], *, logits: bool
) -> tuple[Features, Tensor | None]:
    """Return a frozen network's features of pixels (B, 3, H, W), float32, and, from the same run, its logits.

    The logits are those that `OnlineLogits` gives, bit for bit.
    """
    parts: list[Features] = []
    answers = []
    with evaluating(network):
        for chunk, count in padded_batches(torch.split(pixels, TEACHER_BATCH), TEACHER_BATCH, network.memory_format):
            features, answer = featured.run(chunk, places, logits=logits)
            parts.append({place: feature[:count] for place, feature in features.items()})
            if answer is not None:
                answers.append(answer[:count].float())
    joined = {place: torch.cat([part[place] for part in parts]) for place in places}
    return joined, torch.cat(answers).half().float() if logits else None


def check_comparable(
    student: Network, teacher: Network, image_size: tuple[int, int], *, in_pairs: bool = False
) -> None:
    """Raise UsageError where terms on features have nothing to compare for images (height, width).

    `in_pairs`: whether one of them compares pairs of places.
    """
    if share_blocks(student, teacher):
        places = common_blocks(last_common_block(student, teacher))
    else:
        places = common_strides(ByStride(student, image_size), ByStride(teacher, image_size))
    if in_pairs:
        check_pairs(places)


def common_blocks(last: int) -> tuple[int, ...]:
    """Return the blocks whose features can differ in shape, of those that both networks have: 0 to `last`."""
    return (*(block for block in _ENDS_OF_WIDTHS if block < last), last)


class FeatureTerms:
    """Attention transfer, hint, teacher_tail and the files that compare, as far as a recipe weights them above 0.

    Two networks of a kind whose blocks are known are compared block by block, others where their maps have the same
    stride. `places` are the numbers of the blocks, or the strides, whose features are needed; the student's cut is the
    deepest that both have. `adapter` brings the student's channels there to the teacher's where the widths differ: a
    1x1 convolution that is trained with the student and is no part of it. So is `learned`, what the files that compare
    learn, by their names; these are given the features of all strides in common, or of the last block of each width.
    """

    def __init__(
        self,
        student: Network,
        teacher: Network,
        recipe: Recipe,
        *,
        image_size: tuple[int, int],
        table: AttentionTable | None = None,
    ) -> None:
        """Take a frozen teacher in evaluation mode, on the student's device.

        Args:
            image_size: height and width of the pixels.
            table: of the teacher's attention by stride, which is asked instead of the teacher where that is enough.

        Raises:
            UsageError: there is nothing to compare, or too little.
            ValueError: teacher_tail is wanted of networks whose blocks are not known.
        """
        self._network = teacher
        self._recipe = recipe
        self._attention = recipe.number("attention_weight")
        self._hint, self._tail = recipe.number("hint_weight"), recipe.number("teacher_tail_weight")
        depths = str(recipe.value("attention_depths"))
        self._student: Featured
        self._teacher: Featured
        if share_blocks(student, teacher) or self._tail > 0:
            self._cut = last_common_block(student, teacher)
            self._student, self._teacher = ByBlock(student), ByBlock(teacher)
            attended, common = attention_blocks(depths, self._cut), common_blocks(self._cut)
        else:
            self._student, self._teacher = by_stride = ByStride(student, image_size), ByStride(teacher, image_size)
            common = common_strides(*by_stride)
            self._cut = common[-1]
            attended = attention_strides(depths, common)
        self._attended = attended if self._attention > 0 else ()
        self._at_cut = self._hint > 0 or self._tail > 0
        self._comparing = comparing_files(recipe)
        self._common = common if self._comparing else ()
        others = {*((self._cut,) if self._at_cut else ()), *self._common}
        self.places = tuple(sorted({*self._attended, *others}))
        enough = (
            table is not None
            and isinstance(self._teacher, ByStride)
            and not others
            and table.sizes.keys() >= {*self._attended}
        )
        self._table = table if enough else None
        self.adapter = self._make_adapter().to(student.mean.device)
        self.learned = self._make_learned().to(student.mean.device)

    def _make_adapter(self) -> nn.Module:
        if not self._at_cut:
            return nn.Identity()
        given, wanted = self._student.channels(self._cut), self._teacher.channels(self._cut)
        if given == wanted:
            return nn.Identity()
        with torch.random.fork_rng([]):
            torch.manual_seed(self._recipe.seed)
            return nn.Conv2d(given, wanted, 1, bias=False).to(memory_format=torch.channels_last)

    def _make_learned(self) -> nn.ModuleDict:
        student, teacher = (tuple(map(each.channels, self._common)) for each in (self._student, self._teacher))
        places = Places(numbers=self._common, student=student, teacher=teacher)
        with torch.random.fork_rng([]):
            torch.manual_seed(self._recipe.seed)
            made = {name: file.learn(places, self._recipe) for name, file in self._comparing.items()}
        return nn.ModuleDict(made).to(memory_format=torch.channels_last)

    def ask(self, rows: Tensor, numbers: Tensor, pixels: Tensor, *, logits: bool) -> Taught:
        """Return what the terms need of the teacher for the views `numbers` of the images `rows`, all (B,).

        `pixels` are these clean views, (B, 3, H, W); a table, which has no logits, does not look at them.
        """
        if self._table is not None and not logits:
            return Taught(attention=self._table.maps(rows, numbers, self._attended))
        return self.ask_teacher(pixels, logits=logits)

    def ask_teacher(self, pixels: Tensor, *, logits: bool) -> Taught:
        """Return what the teacher itself says of clean views (B, 3, H, W), with or without its logits."""
        features, answers = ask_featured(self._network, self._teacher, pixels, self.places, logits=logits)
        return Taught(features, {place: attention_map(features[place]) for place in self._attended}, answers)

    def ask_student(self, pixels: Tensor) -> tuple[Features, Tensor]:
        """Return the student's features and its logits, in whatever mode and precision it is run."""
        features, logits = self._student.run(pixels, self.places)
        assert logits is not None, "they are wanted"
        return features, logits

    def loss(self, student: Features, taught: Taught, targets: Tensor) -> Tensor:
        """Return the weighted sum of the terms, computed in float32; the teacher's logits are teacher_tail's alone."""
        student = {place: feature.float() for place, feature in student.items()}
        teacher = taught.features
        total = torch.zeros((), device=targets.device)
        if self._attention > 0:
            attention = {place: attention_map(student[place]) for place in self._attended}
            total = total + self._attention * attention_transfer(attention, taught.attention, self._attended)
        for name, file in self._comparing.items():
            comparison = Comparison(
                recipe=self._recipe,
                student=[student[place] for place in self._common],
                teacher=[teacher[place] for place in self._common],
                learned=cast(nn.ModuleDict, self.learned[name]),
            )
            total = total + file.compare(comparison)
        if not self._at_cut:
            return total
        given, wanted = to_same_size(student[self._cut], teacher[self._cut])
        adapted = self.adapter(given)
        if self._hint > 0:
            total = total + self._hint * hint(adapted, wanted)
        if self._tail > 0:
            assert taught.logits is not None, "the training asks for them where this weight is above 0"
            total = total + self._tail * teacher_tail(
                adapted, self._cut, self._network, taught.logits, targets, temperature=self._recipe.temperature
            )
        return total
