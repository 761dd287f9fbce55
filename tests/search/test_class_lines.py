"""What people read of classes, of two or of a thousand."""

from igkd_hpo.distillation.class_table import class_table
from igkd_hpo.distillation.tally import Tally
from igkd_hpo.search.class_lines import MOST_LINES, class_lines, class_rows


def test_of_a_thousand_classes_the_worst_are_shown() -> None:
    right = [50 - number % 40 for number in range(1000)]
    tally = Tally(
        images=[50] * 1000,
        right=right,
        answered=right,
        mistaken_for=[(number + 1) % 1000 if number % 40 else -1 for number in range(1000)],
        mistaken=[number % 40 for number in range(1000)],
    )
    names = [f"class {number} " + "x" * 100 for number in range(1000)]
    title, headings, *lines = class_lines(class_table(tally, names, most=40), "validation")
    assert title == "the 10 worst of 1000 classes on validation:"
    assert headings.split()[:2] == ["class", "images"]
    assert len(lines) == MOST_LINES
    assert all(len(line) <= 100 for line in (title, headings, *lines))
    assert all("22.00 %" in line for line in lines)


def test_seeds_are_added_and_images_are_not() -> None:
    tally = Tally(images=[12, 228], right=[6, 228], answered=[6, 234], mistaken_for=[1, -1], mistaken=[6, 0])
    table = class_table(tally, ["crack", "fine"], runs=2)
    assert class_rows(table, 10) == [
        ("crack", "6", "50.00 %", "100.00 %", "fine"),
        ("fine", "114", "100.00 %", "97.44 %", ""),
    ]
    never = Tally(images=[2], right=[0], answered=[0], mistaken_for=[-1], mistaken=[0])
    assert class_rows(class_table(never, ["a"]), 10)[0].precision == "never"
