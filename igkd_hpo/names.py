"""The one door for names from outside: of files, folders and classes."""

import os
import re
import unicodedata

LONGEST_NAME = 100  # of a study


def accept_name(given: str) -> str:
    """Return a name as valid Unicode in its composed form (NFC), whatever wrote it.

    Bytes of a file name that are not UTF-8 (a zip from an old Windows) become `\\xe9`, so that the name can be
    written to a database, a page and a terminal. To open a file takes the name as it was given.
    """
    try:
        name = os.fsencode(given)
    except UnicodeEncodeError:  # a surrogate that no file name has: it comes from JSON or YAML
        name = given.encode("utf-8", "surrogatepass")
    return unicodedata.normalize("NFC", name.decode("utf-8", "backslashreplace"))


def plain_name(given: str) -> str:
    """Return a name as a study may have it: `my photos (2)` is `my-photos-2`; empty where no letter or digit can stay.

    Those are the letters of ASCII, digits, '.', '_' and '-', a letter or digit first.
    """
    plain = unicodedata.normalize("NFKD", accept_name(given)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:LONGEST_NAME].rstrip("-._")
