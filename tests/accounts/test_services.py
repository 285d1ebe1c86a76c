import pytest
from django.db import IntegrityError, transaction

from accounts import services
from accounts.changes import change_number
from accounts.models import User


def test_every_write_counts_as_a_change(alice, bob):
    numbers = [change_number()]

    def counted(_=None):
        numbers.append(change_number())

    team = services.create_team("Search", alice)
    counted()
    counted(services.add_member(team, bob, "member"))
    counted(services.set_role(team, bob, "viewer", by=alice))
    key, _ = services.create_key(team, "web", alice)
    counted()
    counted(services.set_priority_ceiling(key, "urgent"))
    counted(services.revoke_key(key, by=alice))
    counted(services.remove_member(team, bob))
    assert numbers == list(range(8))


@pytest.mark.django_db
def test_an_address_belongs_to_one_account_in_any_case(alice):
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("ALICE@example.com", "x")
