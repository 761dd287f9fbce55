"""Colours of all pictures of a study, and the look of each control in them."""

from typing import NamedTuple

from igkd_hpo.trial.pictures import BLUE, GRID, INK

__all__ = ["BLUE", "CONTROL_LOOKS", "GREY", "GRID", "INK", "PAPER", "ControlLook", "control_look"]

GREY, PAPER = "#a8a8a8", "#ffffff"


class ControlLook(NamedTuple):
    """A control's colour, and its mark as matplotlib and as Plotly call it."""

    colour: str
    mark: str
    symbol: str


CONTROL_LOOKS = {
    "student": ControlLook("#d1495b", "o", "circle"),
    "kd": ControlLook("#edae49", "s", "square"),
    "ig": ControlLook("#30963f", "^", "triangle-up"),
    "kd_ig": ControlLook("#7b4fa3", "D", "diamond"),
    "paper": ControlLook("#00798c", "v", "triangle-down"),
    "at": ControlLook("#8c564b", "P", "cross"),
    "kd_at": ControlLook("#b8860b", "X", "x"),
    "ig_at": ControlLook("#17a2a2", "<", "triangle-left"),
    "kd_ig_at": ControlLook("#c2185b", ">", "triangle-right"),
}


def control_look(name: str) -> ControlLook:
    """Return how a control looks; one that another version made is a grey star."""
    return CONTROL_LOOKS.get(name, ControlLook("#808080", "*", "star"))
