"""Foreign text made harmless."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.common.sanitize import clean, hide_secrets
from bdauto.domain.results import last_line

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
    "Authorization: Basic YTpi",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX",
    "AKIAIOSFODNN7EXAMPLE was refused",
    '{"token": "0123456789abcdef"}',
    "password=hunter22 refused",
    "Password: 'hunter22'",
    "https://me:hunter22@host/",
    "postgres://u:hunt@er22@db/x",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv",
    "AIzaSyA-abcdefghijklmnopqrstuvwxyz012345",
    "xoxb-1234567890-abcdefghijkl",
    "sk_live_abcdef0123456789abcdef",
    "sk-proj-abcdef0123456789_abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_def",
    "-----BEGIN RSA PRIVATE KEY----- MIIEabcdef -----END RSA PRIVATE KEY-----",
    "x-api-key: 0123456789abcdef",
    "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "hf_abcdefghijklmnopqrstuvwxyz01234567",
    "SG.abcdefghijklmnop.qrstuvwxyzabcdef",
    "glpat-abcdefghij0123456789",
    "Cookie: session=abcdef; other=abcdef",
    "curl --token abcdefghi x",
    "mysql --password hunter22",
    "https://x/?sig=abcdef%2B0123456789abcdef%3D",
    "AccountKey=abcdef0123456789+/abcdef==",
    "dapi0123456789abcdef0123456789abcdef",
    "ya29.abcdef0123456789",
    "Authorization: token abcdef0123",
    "123456789:AAabcdefghijklmnopqrstuvwxyz01234567",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str) -> None:
    shown = hide_secrets(text)
    assert "***" in shown
    assert not any(secret in shown for secret in ("abcdef", "dXNl", "YTpi", "wJal", "IOSF", "hunter", "er22"))


NO_SECRETS = [
    "no token left",
    "the key was lost",
    "the password is wrong",
    "tokens: 12345",
    "a/b@2",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "cache key 3f2504e04f8911d39a0c0305e82c3301",
    "job 0b37aa7fd784 of code-6it.1.2",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "bead sk-a1b2.1",
    "sk-learn-pipeline-regression",
    "npm_config_registry_directory_1",
    "hf_hub_download_file_12345678",
    "missing key user_profile_settings_2024",
    "PWD=/home/me",
    "key stage 1 of 3",
    "authorization failed because of 3 errors",
    "risk-2024-backup-1234567890",
    "w03aa50460a1843be",
    "the turnkey 2024-11-30T10:00:00Z build",
    "uv sync --key-file x",
    "integrity sha512-oMBkL1V2Zq5VfFq0Zy9Kz8bQ==",
    "task-0123456789abcdef01",
]


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_is_no_secret_is_shown(text: str) -> None:
    """Ids, hashes, names of files, and sentences that speak of keys."""
    assert hide_secrets(text) == text


def test_a_secret_at_the_cut_of_the_last_words_is_hidden() -> None:
    assert "ghp_" not in last_line("x" * 185 + " ghp_abcdefghijklmnopqrstuvwxyz0123456789")


def test_a_key_in_a_block_is_hidden() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAABG5vbmU\n"
    assert hide_secrets(f"before\n{text}-----END OPENSSH PRIVATE KEY-----\nafter") == "before\n***\nafter"
    assert hide_secrets(f"before\n{text}") == "before\n***"
