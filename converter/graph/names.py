"""Python names for layers and blobs of an untrusted file: submodules, variables, classes.

A layer or blob may have any name: "conv1/3x3", "class", "forward", "", "a b", a ligature. Its Python name is similar,
and
1. normalized as Python normalizes identifiers (NFKC), so that source and `getattr` mean the same name;
2. free of characters that end a string or nest a module (quotes, backslashes, dots, control characters);
3. not a keyword, a builtin, or a name with a meaning in torch;
4. unique within its kind.
"""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

#: Public names of torch.nn.Module and fx.GraphModule in torch 2; listed so that building a net needs no torch.
MODULE_NAMES = frozenset(
    """
    add_module add_submodule apply bfloat16 buffers call_super_init children code compile cpu cuda
    delete_all_unused_submodules delete_submodule double dump_patches eval extra_repr float forward get_buffer
    get_extra_state get_parameter get_submodule graph half ipu load_state_dict meta modules mtia named_buffers
    named_children named_modules named_parameters parameters print_readable recompile register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule shape_env share_memory state_dict T_destination to to_empty to_folder train training
    type xpu zero_grad
    """.split()  # noqa: SIM905
)
#: names that generated source uses itself
_SOURCE_NAMES = frozenset(
    "self torch nn F math operator numpy Path load net device inf nan fx_pytree pytree".split()  # noqa: SIM905
)


class UniqueNames:
    """Names that are unique within their kind: a repeated name gets `_2`, `_3`, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        #: name -> the last number tried, so that n equal names take n steps
        self._numbers: dict[str, int] = {}

    def add(self, name: str) -> str:
        """The name, with a number where it is taken already."""
        unique, number = name, self._numbers.get(name, 1)
        while unique in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._numbers[name] = number
        self._taken.add(unique)
        return unique


def make_attribute(name: str) -> str:
    """A submodule name close to a layer's own; not necessarily unique.

    Slashes, spaces, colons, plus and minus stay: they are common in published nets and harmless in `getattr`.
    """
    safe = re.sub(r"[^\w/ :+\-]", "_", unicodedata.normalize("NFKC", name)).strip() or "layer"
    if safe.startswith("_"):  # torch keeps its own state under such names
        safe = f"layer{safe}"
    if keyword.iskeyword(safe) or safe in MODULE_NAMES or safe == "self":
        safe += "_"
    return safe


class Variables:
    """Blob names as variables of generated source: one identifier per name, the same one each time."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._unique = UniqueNames({*_SOURCE_NAMES, *dir(builtins), *taken})

    def of(self, name: str) -> str:
        """The identifier of a blob name."""
        if name not in self._names:
            safe = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name)) or "blob"
            if not safe.isidentifier() or keyword.iskeyword(safe) or safe.startswith("__"):
                safe = f"blob_{safe}"
            if not safe.isidentifier():  # a word character that no identifier may hold
                safe = re.sub(r"\W", "_", safe, flags=re.ASCII)
            self._names[name] = self._unique.add(safe)
        return self._names[name]


def class_name(name: str, taken: Iterable[str] = ()) -> str:
    """A Python class name made of the words of a net's name; not one of `taken`."""
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in name).split()
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    safe = joined if joined and not joined[0].isdigit() else f"Net{joined}"
    used = {*_SOURCE_NAMES, *dir(builtins), *taken}
    return f"{safe}Net" if safe in used or keyword.iskeyword(safe) else safe
