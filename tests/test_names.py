"""Whatever a file or class is called, its name is text that can be written anywhere, and always in the same way."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.names import accept_name


@given(st.binary(min_size=1, max_size=20))
def test_a_file_name_of_any_bytes_is_valid_composed_unicode(name: bytes) -> None:
    accepted = accept_name(os.fsdecode(name))
    assert accepted.encode().decode() == accepted
    assert unicodedata.is_normalized("NFC", accepted)
    assert accept_name(accepted) == accepted


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_decomposed_and_composed_letters_are_one_name(name: str) -> None:
    assert accept_name(unicodedata.normalize("NFD", name)) == accept_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("given", "accepted"),
    [("épée", "épée"), (os.fsdecode(b"\xe9p\xe9e"), r"\xe9p\xe9e"), ("\ud800", r"\xed\xa0\x80"), ("a%20b", "a%20b")],
)
def test_bytes_that_are_no_text_are_written_out(given: str, accepted: str) -> None:
    assert accept_name(given) == accepted
