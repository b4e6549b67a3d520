"""Names of columns and features, which may be any text, as names for tensors, layers and files.

TensorFlow, Keras and file systems each forbid some characters, words and lengths, and take some
names for one ("a b" and "a_b", "Net" and "net"). Whatever is named after a column or a feature is
named by `safe_names`.
"""

import hashlib
import keyword
import re
from collections import Counter
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RESERVED = {"self", "key", *map(str.lower, keyword.kwlist)}
"""Words that TensorFlow does not take for an argument, and the argument that rows' keys have."""
_KEPT, _DIGITS = 40, 12


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each: the name itself if it is plain and like no other, else with a hash.

    Args:
      names: Different ones.

    Returns:
      An ASCII letter, then ASCII letters, digits or "_", 64 at most; different ones even where
      case does not count.
    """
    names = list(names)
    alike = Counter(name.lower() for name in names)
    return {
        name: name if _is_safe(name) and alike[name.lower()] == 1 else _hashed(name)
        for name in names
    }


def _is_safe(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None and name.lower() not in _RESERVED


def _hashed(name: str) -> str:
    plain = re.sub(r"\W", "_", name[:_KEPT], flags=re.ASCII)
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"c_{plain}_{digest[:_DIGITS]}"
