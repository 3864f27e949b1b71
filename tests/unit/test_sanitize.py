"""Foreign text made harmless."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.sanitize import clean, hide_secrets

CASES: list[tuple[str, str, str]] = [
    ("plain", "it works", "it works"),
    ("lines", " a\n\tb \r\n c\u2028d ", "a b c d"),
    ("escapes", "\x1b[31mred\x1b[0m\x07\x00", "[31mred[0m"),
    ("right to left", "abc\u202ecod.exe\u2066x\u2069", "abccod.exex"),
    ("invisible", "a\u200bb\ufeffc\u00adд", "abcд"),
    ("surrogates", "a\ud800b", "ab"),
    ("letters of the world", "naïve 漢字 🙂", "naïve 漢字 🙂"),
    ("markup stays text", "[bold]x[/bold]", "[bold]x[/bold]"),
]


@pytest.mark.parametrize(("text", "shown"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_what_is_cut_says_so() -> None:
    assert clean("x" * 301) == "x" * 299 + "…"
    assert clean("x" * 300) == "x" * 300
    assert clean(" " * 2000 + "x", 10).endswith("…")
    assert len(clean("x" * 1_000_000)) == 300


@given(st.text(st.characters(), max_size=2000), st.integers(2, 400))
def test_any_text_becomes_one_bounded_harmless_line(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert shown == shown.strip()
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c).startswith("C") for c in shown)
    assert clean(shown, limit) == shown


SECRETS = [
    "key sk-ant-api03-abcdef123456 is wrong",
    "Authorization: Bearer 0123456789abcdef0123",
    "Authorization: Basic dXNlcjpwYXNzd29yZDE=",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX",
    "AKIAIOSFODNN7EXAMPLE was refused",
    '{"token": "0123456789abcdef"}',
    "password=hunter22 refused",
    "Password: 'hunter22'",
    "https://me:hunter22@host/",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str) -> None:
    shown = hide_secrets(text)
    assert "***" in shown
    assert not any(secret in shown for secret in ("abcdef", "dXNl", "wJal", "IOSF", "hunter"))


@pytest.mark.parametrize(
    "text", ["no token left", "the key was lost", "the password is wrong", "tokens: 12345", "a/b@2"]
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert hide_secrets(text) == text
