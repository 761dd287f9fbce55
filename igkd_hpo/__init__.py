"""Hyperparameter optimisation for tiny students: knowledge distillation with Integrated-Gradients overlays."""

from importlib.metadata import version

__version__ = version("igkd-hpo")
