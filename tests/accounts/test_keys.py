import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import keys

base62 = st.sampled_from(keys.ALPHABET)
parts_of_keys = st.builds(
    keys.Parts,
    public_id=st.text(base62, min_size=12, max_size=12),
    secret=st.text(base62, min_size=43, max_size=43),
    prefix=st.sampled_from([keys.PREFIX, keys.ACCESS_PREFIX]),
)


def test_a_minted_key_has_the_documented_shape():
    assert re.fullmatch(r"pst_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", keys.mint().text)


def test_minted_keys_differ():
    assert len({keys.mint().text for _ in range(100)}) == 100


def test_the_secret_holds_256_bits():
    assert len(keys.ALPHABET) ** keys.SECRET_LENGTH >= 2**256
    assert len(set(keys.ALPHABET)) == 62


def test_a_whole_key_is_looked_for_by_what_may_be_shown_of_it():
    assert keys.without_secret("pst_abcdefghijkl_" + "s" * 49) == "pst_abcdefghijkl"
    assert keys.without_secret("pst_abcdefghijkl" + "s" * 49) == "pst_abcdefghijkl"
    assert keys.without_secret("gpt-4o_mini") == "gpt-4o_mini"


def test_the_format_does_not_change_by_accident():
    parts = keys.Parts("0" * 12, "z" * 43)
    assert parts.text == "pst_000000000000_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3ul6bk"
    assert (
        keys.digest(parts.secret, "p" * 32).hex()
        == "2320cf134899efa8dd8092ea6f271e3b4eb9f73d9ae36c9efc8ebd57ffb9ca51"
    )


def test_the_fingerprint_of_a_pepper_does_not_change_by_accident():
    """The database keeps it: another one would tell of a lost pepper that is still there."""
    assert keys.fingerprint("p" * 32) == "93c2ed12c5b8fdab8724fe92ac8ab0710a3d4b46bd91b47bc8ed487cc159d66b"


def test_the_id_of_a_pepper_does_not_change_by_accident():
    assert keys.pepper_id("p" * 32) == "180fc878813aea4e"


@given(parts_of_keys)
def test_what_was_put_together_can_be_taken_apart(parts):
    assert keys.take_apart(parts.text, parts.prefix) == parts


@given(parts_of_keys, st.integers(0, keys.LENGTH - 1), base62)
def test_one_wrong_character_is_noticed(parts, place, other):
    right = parts.text
    wrong = right[:place] + other + right[place + 1 :]
    assert (keys.take_apart(wrong, parts.prefix) is None) == (wrong != right)


@given(st.text())
def test_garbage_is_none(text):
    assert keys.take_apart(text) is None


@given(st.text(min_size=keys.LENGTH, max_size=keys.LENGTH))
def test_garbage_of_the_right_length_is_none(text):
    assert keys.take_apart(text) is None


@given(parts_of_keys, st.sampled_from(["\n", " ", "\0", "\ud800", "é", "x"]))
def test_nothing_may_stand_before_or_after_a_key(parts, more):
    prefix, text = parts.prefix, parts.text
    assert keys.take_apart(text + more, prefix) is None
    assert keys.take_apart(more + text, prefix) is None
    assert keys.take_apart(more + text[1:], prefix) is None
    assert keys.take_apart(text[:-1] + more, prefix) is None or more == text[-1]


def test_an_access_token_is_no_api_key_and_the_other_way_round():
    assert len(keys.ACCESS_PREFIX) == len(keys.PREFIX)
    assert keys.take_apart(keys.mint(keys.ACCESS_PREFIX).text) is None
    assert keys.take_apart(keys.mint().text, keys.ACCESS_PREFIX) is None


@pytest.mark.parametrize("text", ["", "pst_", "sk-" + "a" * 63, "x" * 10_000_000])
def test_a_text_of_any_length_is_none(text):
    assert keys.take_apart(text) is None


def test_fullwidth_digits_are_no_base62():
    text = keys.mint().text
    assert keys.take_apart(text[:-1] + "１") is None  # noqa: RUF001


def test_a_printed_key_keeps_its_secret():
    parts = keys.mint()
    assert parts.secret not in repr(parts)
    assert parts.secret not in str(parts)
    assert parts.public_id in repr(parts)


def test_a_digest_needs_both_secret_and_pepper():
    digests = {keys.digest(secret, pepper) for secret in ("one", "two") for pepper in ("p", "q")}
    assert len(digests) == 4
    assert all(len(each) == 32 for each in digests)


def test_digests_are_compared():
    assert keys.same(b"a" * 32, b"a" * 32)
    assert not keys.same(b"a" * 32, b"b" * 32)


def test_a_pepper_is_named_without_being_told():
    pepper = "p" * 40
    assert len(keys.pepper_id(pepper)) == 16
    assert len(keys.fingerprint(pepper)) == 64
    assert not keys.fingerprint(pepper).startswith(keys.pepper_id(pepper))
    assert keys.pepper_id(pepper) != keys.pepper_id("q" * 40)
    assert keys.fingerprint(pepper) != keys.fingerprint("q" * 40)
