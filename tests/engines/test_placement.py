"""The benchmark of several trials on one device: a grouped network is what its students are, and sums are right."""

import copy

import torch

from benchmarks.placement import Run, group, summarise
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2


def test_a_grouped_network_computes_and_learns_what_its_students_do_apart() -> None:
    torch.manual_seed(0)
    students = [mobilenet_v2(num_classes=4, width=0.25, layers_removed=14) for _ in range(3)]
    together = group([copy.deepcopy(student) for student in students])
    pixels = torch.rand(8, 9, 8, 8)
    logits = together(pixels)
    logits.square().sum().backward()
    for number, student in enumerate(students):
        own = student(pixels[:, 3 * number : 3 * number + 3])
        torch.testing.assert_close(logits[:, number], own)
        own.square().sum().backward()
    for name, parameter in together.named_parameters():
        theirs = [student.get_parameter(name).grad for student in students]
        assert all(gradient is not None for gradient in theirs)
        join = torch.stack if "classifier" in name else torch.cat
        torch.testing.assert_close(parameter.grad, join(theirs), atol=1e-4, rtol=1e-3)
    for name, buffer in together.named_buffers():
        if buffer.dim():  # running statistics
            torch.testing.assert_close(buffer, torch.cat([student.get_buffer(name) for student in students]))


def test_ratios_are_to_one_student_alone() -> None:
    runs = [
        Run(arrangement=name, trials=trials, images_per_second=rate, memory=memory << 20)
        for name, trials, rate, memory in (
            ("alone", 1, 100.0, 10),
            ("processes", 2, 150.0, 20),
            ("alone", 1, 140.0, 12),
            ("processes", 2, 162.0, 19),
        )
    ]
    alone, processes = summarise(runs)
    assert (alone["n"], alone["images_per_second"], alone["ratio"], alone["memory_mib"]) == (2, 120.0, 1.0, 12)
    assert (processes["lowest"], processes["highest"], processes["ratio"]) == (150.0, 162.0, 1.3)
