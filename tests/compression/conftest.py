"""The fixtures of studies that ran with accuracies made up."""

from tests.fixtures.studies import *  # noqa: F403
