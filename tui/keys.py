"""Keys: one letter means one thing everywhere, also while a Korean keyboard is in Hangul mode."""

from __future__ import annotations

from textual.binding import Binding

# What the key of a letter sends on a Korean keyboard (two-set layout) in Hangul mode.
HANGUL = dict(zip("qwertyuiopasdfghjklzxcvbnm", "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ", strict=True))


def bind(
    key: str, action: str, description: str, *, show: bool = True, help: str = "", priority: bool = False
) -> Binding:
    """A binding whose letter also works in Hangul mode. `help` is the sentence in the help screen."""
    keys = ",".join([key, *(HANGUL[k] for k in key.split(",") if k in HANGUL)])
    return Binding(keys, action, description, show=show, tooltip=help, priority=priority, id=f"{action}:{key}")


def display(key: str) -> str:
    """A key as people write it."""
    names = {
        "escape": "esc",
        "question_mark": "?",
        "slash": "/",
        "plus": "+",
        "minus": "-",
        "space": "space",
        "enter": "enter",
    }
    names |= {"left_square_bracket": "[", "right_square_bracket": "]"}
    if key.startswith("ctrl+"):
        return "^" + names.get(key[5:], key[5:])
    return names.get(key, key)
