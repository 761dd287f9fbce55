"""The terms that compare a student's features with its teacher's, and the adapter that is learned beside it."""

import torch
from torch import Tensor, nn

from igkd_hpo.distillation.blocks import Features, channels, forward_to, last_common_block, logits_from
from igkd_hpo.distillation.evaluation import evaluating, padded_batches
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import TEACHER_BATCH
from igkd_hpo.distillation.terms.attention import attention_blocks, attention_transfer
from igkd_hpo.distillation.terms.hint import hint
from igkd_hpo.distillation.terms.teacher_tail import teacher_tail


class FeatureTerms:
    """Attention transfer, hint and teacher_tail, as far as a recipe weights them above 0.

    `adapter` brings the student's channels at its cut to the teacher's where the widths differ: a 1x1 convolution that
    is trained with the student and is no part of it. `blocks` are those whose features are needed.
    """

    def __init__(self, student: Network, teacher: Network, recipe: Recipe) -> None:
        """Take a frozen teacher in evaluation mode, on the student's device; ValueError where blocks are not known."""
        self._student = student
        self._teacher = teacher
        self._recipe = recipe
        self._cut = last_common_block(student, teacher)
        self._attention = recipe.number("attention_weight")
        self._hint, self._tail = recipe.number("hint_weight"), recipe.number("teacher_tail_weight")
        depths = str(recipe.value("attention_depths"))
        self._attended = attention_blocks(depths, self._cut) if self._attention > 0 else ()
        self._at_cut = self._hint > 0 or self._tail > 0
        self.blocks = tuple(sorted({*self._attended, *((self._cut,) if self._at_cut else ())}))
        self.adapter = self._make_adapter().to(student.mean.device)

    def _make_adapter(self) -> nn.Module:
        given, wanted = channels(self._student, self._cut), channels(self._teacher, self._cut)
        if not self._at_cut or given == wanted:
            return nn.Identity()
        with torch.random.fork_rng([]):
            torch.manual_seed(self._recipe.seed)
            return nn.Conv2d(given, wanted, 1, bias=False).to(memory_format=torch.channels_last)

    def ask_teacher(self, pixels: Tensor, *, logits: bool) -> tuple[Features, Tensor | None]:
        """Return the teacher's features for clean views (B, 3, H, W), float32, and, from the same run, its logits.

        The logits are those that `OnlineLogits` gives, bit for bit.
        """
        parts: list[Features] = []
        answers = []
        deepest = self.blocks[-1]
        with evaluating(self._teacher):
            for chunk, count in padded_batches(pixels, TEACHER_BATCH):
                features = forward_to(self._teacher, chunk, self.blocks)
                parts.append({block: feature[:count] for block, feature in features.items()})
                if logits:
                    answers.append(logits_from(self._teacher, features[deepest], deepest)[:count])
        joined = {block: torch.cat([part[block] for part in parts]) for block in self.blocks}
        return joined, torch.cat(answers).half().float() if logits else None

    def ask_student(self, pixels: Tensor) -> tuple[Features, Tensor]:
        """Return the student's features and its logits, in whatever mode and precision it is run."""
        features = forward_to(self._student, pixels, self.blocks)
        return features, logits_from(self._student, features[self.blocks[-1]], self.blocks[-1])

    def loss(self, student: Features, teacher: Features, teacher_logits: Tensor | None, targets: Tensor) -> Tensor:
        """Return the weighted sum of the terms, computed in float32; `teacher_logits` are teacher_tail's alone."""
        student = {block: feature.float() for block, feature in student.items()}
        total = torch.zeros((), device=targets.device)
        if self._attention > 0:
            total = total + self._attention * attention_transfer(student, teacher, self._attended)
        if not self._at_cut:
            return total
        adapted = self.adapter(student[self._cut])
        if self._hint > 0:
            total = total + self._hint * hint(adapted, teacher[self._cut])
        if self._tail > 0:
            assert teacher_logits is not None, "the training asks for them where this weight is above 0"
            total = total + self._tail * teacher_tail(
                adapted, self._cut, self._teacher, teacher_logits, targets, temperature=self._recipe.temperature
            )
        return total
