from accounts.models import AuditEvent
from accounts.templatetags.changes import ACTIONS, NAMES, differences, in_words, subject


def event(subject_kind="apikey", before=None, after=None) -> AuditEvent:
    return AuditEvent(subject_kind=subject_kind, subject_name="web", before=before or {}, after=after or {})


def test_what_changed_is_told_with_both_sides():
    told = differences(event(before={"name": "web", "hard": False}, after={"name": "api", "hard": True}))
    assert told == [("name", "web", "api"), ("hard", "no", "yes")]


def test_of_a_new_thing_only_what_it_has_is_told():
    told = differences(
        event(after={"name": "web", "routes": None, "tags": {}, "networks": ["10.0.0.0/8", "::1"]})
    )
    assert told == [("name", None, "web"), ("networks", None, "10.0.0.0/8, ::1")]


def test_what_went_away_is_told_as_nothing():
    told = differences(event(before={"tags": {"env": "test"}}, after={"tags": {}}))
    assert told == [("tags", "env=test", "nothing")]


def test_moments_are_told_to_the_second():
    at = "2030-01-02T03:04:05.678901+00:00"
    assert differences(event(after={"revoked_at": at})) == [("revoked at", None, "2030-01-02 03:04:05 UTC")]
    assert differences(event(after={"warn_at": [50, 80]})) == [("warn at", None, "50, 80")]


def test_a_quota_in_money_is_told_in_the_currency():
    changed = event("quota", {"kind": "money", "period": "day", "amount": 10**9}, {"amount": 2 * 10**9})
    assert ("amount", "1.00 USD", "2.00 USD") in differences(changed)
    assert subject(changed) == "money a day"


def test_an_action_is_a_short_sentence():
    assert in_words("key.overlap_ended") == "Key overlap ended"


def test_what_has_no_words_of_its_own_is_told_as_it_is_written():
    assert in_words("lock.picked_twice") == "Lock picked twice"
    assert differences(event(after={"so_far_unknown": 1})) == [("so far unknown", None, "1")]


def test_every_action_and_name_in_words_reads_as_it_is_written():
    assert {name: in_words(name) for name in ACTIONS} == {
        name: name.replace(".", " ").replace("_", " ").capitalize() for name in ACTIONS
    }
    assert {name: str(words) for name, words in NAMES.items()} == {
        name: name.replace("_", " ") for name in NAMES
    }
