"""What the one search field of calls takes a text for."""

from uuid import UUID

import pytest

from accounts.models import ApiKey, KeySecret, Team
from gateway.ledger.calls import Asked, Likeness
from gateway.ledger.seeking import Unreadable, ids, sought

ID = "01a20519-f84d-77c1-b58e-ba542d25a418"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        (ID, UUID(ID), UUID(ID)),
        (ID.upper(), UUID(ID), UUID(ID)),
        (ID.replace("-", ""), UUID(ID), UUID(ID)),
        ("01a20519", UUID("01a20519" + "0" * 24), UUID("01a20519" + "f" * 24)),
        ("01a20519-f8", UUID("01a20519f8" + "0" * 22), UUID("01a20519f8" + "f" * 22)),
    ],
)
def test_the_beginning_of_an_id_is_all_ids_that_begin_so(text, first, last):
    assert ids(text) == (first, last)


@pytest.mark.parametrize("text", ["", "01a2051", "gpt-4o", "decade", ID + "0", "0" * 400, "01a20519 f84d"])
def test_what_is_no_id_is_none(text):
    assert ids(text) is None


def test_no_id_is_of_a_time_that_no_moment_can_tell():
    asked = Asked(None, ids=ids("f" * 32)).within_ids()

    assert asked.since is not None
    assert asked.since.year == 2200


def test_words_are_also_part_of_a_keys_name():
    asked = sought(Asked((1,)), " Nightly ", {7: "the nightly batch", 8: "daily"})

    assert asked.like == Likeness("Nightly", (7,))


def test_a_tag_is_a_tag():
    assert sought(Asked((1,)), "project=a=b", {}).tag == ("project", "a=b")


@pytest.mark.parametrize(("text", "tag"), [("=x", None), ("a=b", ("a", "c"))])
def test_a_tag_without_a_name_or_beside_another_is_refused(text, tag):
    with pytest.raises(Unreadable):
        sought(Asked((1,), tag=tag), text, {})


def test_nothing_typed_asks_for_nothing():
    assert sought(Asked((1,)), "  ") == Asked((1,))


@pytest.mark.django_db
def test_keys_are_found_by_prefix_and_name_within_the_teams():
    tide, solar = (Team.objects.create(name=name, slug=name) for name in ("tide", "solar"))
    keys = [ApiKey.objects.create(team=team, name="100%_sure") for team in (tide, solar)]
    for number, key in enumerate(keys):
        KeySecret.objects.create(key=key, public_id=f"abcd{number}", digest=b"", pepper_id="")

    by_prefix = sought(Asked((tide.pk,)), "pst_abcd")
    everywhere = sought(Asked(None), "%_su")

    assert by_prefix.like == Likeness("", (keys[0].pk,))
    assert everywhere.like is not None
    assert set(everywhere.like.key_ids) == {each.pk for each in keys}
    assert sought(Asked((tide.pk,)), "%%").like == Likeness("%%", ())
